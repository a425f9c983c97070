//! Time that passes quickly, for a bank, a provider and a client of one runtime.

use std::time::Duration;

use tokio::sync::mpsc;

/// How much time passes in a millisecond.
const TICK: Duration = Duration::from_millis(50);

/// Runs `work` on a runtime of its own whose time passes fifty times as fast. A busy machine makes
/// it slower: no tick comes before everybody has seen the last one.
pub(super) fn in_fast_time<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(async {
        let time = tokio::spawn(pass());
        let done = work.await;
        time.abort();
        done
    })
}

async fn pass() {
    let (tick, mut ticks) = mpsc::channel(1);
    // While this runs, paused time does not jump to the next timer, which it would do while an
    // answer is on its way through the system.
    tokio::task::spawn_blocking(move || {
        while tick.blocking_send(()).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    while ticks.recv().await.is_some() {
        tokio::time::advance(TICK).await;
    }
}
