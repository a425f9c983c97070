//! Every store answers every command like the machine.

use farebox_ledger::conformance::{agrees, histories, replay};
use farebox_ledger::store::Memory;
use farebox_ledger::{Command, FirstRecord, Ledger, Options, Store as _};
use farebox_protocol::{Currency, ErrorCode, PayerId};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("FAREBOX_HISTORIES").ok().and_then(|n| n.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(default), ..ProptestConfig::default() }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn memory_answers_like_the_machine(history in histories(200), seed: [u8; 32]) {
        let payer = PayerId::from_bytes(seed);
        block_on(replay(&Memory::default(), &payer, &history)).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn embedded_answers_like_the_machine_and_keeps_it(history in histories(60), seed: [u8; 32]) {
        let folder = tempfile::tempdir()?;
        let url = format!("embedded:{}", folder.path().join("ledger.redb").display());
        let payer = PayerId::from_bytes(seed);
        let first = FirstRecord::new("check", "sandbox", None);
        block_on(async {
            let store = Ledger::open(&url, &first, Options::default()).await.unwrap();
            let model = replay(&store, &payer, &history).await?;
            // Everything up to here is on disk once a durable command is answered.
            let barrier = Command::FailTopUp {
                currency: Currency::USD,
                number: 99,
                code: ErrorCode::CardDeclined,
            };
            store.apply(&payer, &barrier).await.unwrap();
            drop(store);

            let store = Ledger::open(&url, &first, Options::default()).await.unwrap();
            agrees(&store, &payer, &model.restarted()).await
        })
        .map_err(TestCaseError::fail)?;
    }
}
