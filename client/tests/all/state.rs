use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use farebox_client::{PaymentError, StateError, usd};
use http::StatusCode;

use crate::support::{
    CARD, Reply, Seen, Server, agent, client, failure, held, honest, policy, served, tokenizer,
    told,
};

#[tokio::test]
async fn credentials_prices_and_budgets_survive_reopening() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    let first = agent(policy().per_day(usd!("5")), &stripe).state(&path).unwrap();
    client(&first).get(server.url("/joke")).send().await.unwrap();
    drop(first);

    let second = agent(policy().per_day(usd!("5")), &stripe).state(&path).unwrap();
    assert_eq!(held(&second).await, usd!("5"));
    let http = client(&second);
    http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!((server.seen().len(), provider.charges()), (3, 1));
    provider.balance.store(0, Ordering::SeqCst);
    let result = http.get(server.url("/joke")).send().await;
    assert!(matches!(failure(&result), PaymentError::Refused(_)), "the day is used up");
}

#[tokio::test]
async fn a_payment_in_flight_is_in_the_file_before_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    let file = path.clone();
    let payments = AtomicUsize::new(0);
    let server = Server::start(move |seen: &Seen| -> Reply {
        if seen.card().is_none() {
            let mut required = crate::support::required(100);
            required.accepts[0].max_top_up = farebox_protocol::Units::new(1_000_000);
            return crate::support::asking(&required).into();
        }
        let written = std::fs::read_to_string(&file).unwrap();
        assert!(written.contains("pm_1") && written.contains("5.00 usd"), "{written}");
        match payments.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::Silence,
            _ => served(StatusCode::OK, &told(Some("ch_1"), Some(100), 49_900)).into(),
        }
    })
    .await;
    let stripe = tokenizer().await;
    let first = agent(policy().per_day(usd!("5")), &stripe).state(&path).unwrap();
    let request = client(&first).get(server.url("/joke")).timeout(Duration::from_millis(500));
    assert!(matches!(failure(&request.send().await), PaymentError::Unknown));
    drop(first);

    // Another process goes on with the same token and the same hold.
    let second = agent(policy().per_day(usd!("5")), &stripe).state(&path).unwrap();
    assert_eq!(held(&second).await, usd!("5"));
    client(&second).get(server.url("/joke")).send().await.unwrap();
    assert_eq!(server.cards(), ["pm_1", "pm_1"]);
    assert_eq!((stripe.seen().len(), held(&second).await), (1, usd!("5")));
    assert!(!std::fs::read_to_string(&path).unwrap().contains("pm_1"), "it is resolved");
}

#[tokio::test]
async fn agents_with_one_state_file_share_credit_and_budget() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    // As two processes would: each has its own view of the file.
    let first = agent(policy(), &stripe).state(&path).unwrap();
    let second = agent(policy(), &stripe).state(&path).unwrap();
    client(&first).get(server.url("/joke")).send().await.unwrap();
    client(&second).get(server.url("/joke")).send().await.unwrap();
    assert_eq!((provider.charges(), stripe.seen().len()), (1, 1));
    assert_eq!((held(&first).await, held(&second).await), (usd!("5"), usd!("5")));
    // The second asked first, and found the credit when it had its turn.
    assert_eq!(server.seen().len(), 2 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_with_one_state_file_pay_an_origin_one_after_the_other() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let agent = agent(policy(), &stripe).state(&path).unwrap();
        let http = client(&agent);
        for _ in 0..4 {
            calls.spawn(http.get(server.url("/joke")).send());
        }
    }
    for result in calls.join_all().await {
        assert!(result.unwrap().status().is_success());
    }
    assert_eq!((provider.charges(), stripe.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_state_file_holds_no_card_and_only_its_owner_reads_it() {
    let (_, server) = honest(100).await;
    let stripe = tokenizer().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    let first = agent(policy(), &stripe).state(&path).unwrap();
    client(&first).get(server.url("/joke")).send().await.unwrap();
    let written = std::fs::read_to_string(&path).unwrap();
    // The code as a value: the server's port may have its digits.
    assert!(!written.contains(&CARD[..16]) && !written.contains("\"987\""), "{written}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_file_that_is_not_a_state_file_is_left_alone() {
    let stripe = tokenizer().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    for text in ["", "{}", "[]", r#"{"schema":1,"usage":{"rows":[]},"origins":{},"uses":0}"#] {
        std::fs::write(&path, text).unwrap();
        let opened = agent(policy(), &stripe).state(&path);
        assert!(matches!(opened.unwrap_err(), StateError::Malformed(_)), "{text}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_payment_that_cannot_be_written_down_is_not_sent() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    let agent = agent(policy(), &stripe).state(&path).unwrap();
    // A directory in the temporary file's place; permissions do not stop a test run by root.
    std::fs::create_dir(folder.path().join("agent.json.tmp")).unwrap();
    let result = client(&agent).get(server.url("/joke")).send().await;
    assert!(matches!(failure(&result), PaymentError::State(_)), "{result:?}");
    assert_eq!((server.cards().len(), provider.charges()), (0, 0));
    assert_eq!(held(&agent).await, usd!("0"));
    std::fs::remove_dir(folder.path().join("agent.json.tmp")).unwrap();
    client(&agent).get(server.url("/joke")).send().await.unwrap();
    assert_eq!(held(&agent).await, usd!("5"));
}
