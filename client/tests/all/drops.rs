//! A call is given up at every point at which it waits. It is charged once at most, what was
//! charged is counted, and the next call of its origin gets its turn.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use farebox_client::{Agent, Money, PaymentError, PaymentErrorExt as _, Reason, usd};
use reqwest::Response;

use crate::support::{Server, tokenizer};
use crate::till::{Caller, KINDS, Kind, TOP_UP, Till, agent, counted, times};

const PATIENCE: Duration = Duration::from_secs(20);
/// Calls until every payment is resolved that can be.
const CALLS: usize = 4;

/// Polls `future` so often and no more; `None` if it is not done then.
async fn polled<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|context| {
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

struct Trial {
    kind: Kind,
    named: bool,
    polls: usize,
    till: Arc<Till>,
    server: Server,
    agent: Agent,
}

impl Trial {
    async fn of(
        kind: Kind,
        named: bool,
        polls: usize,
        state: Option<&Path>,
        stripe: &str,
    ) -> Trial {
        let (till, server) = Till::open(kind, 100, Box::new(|_| ())).await;
        // A server of version 1 may be paid again by another call. Nobody else needs more.
        let limit = if kind == Kind::V1 { usd!("10") } else { usd!("5") };
        let agent = agent(limit, stripe);
        let agent = match state {
            Some(path) => agent.state(path).unwrap(),
            None => agent,
        };
        Trial { kind, named, polls, till, server, agent }
    }

    fn about(&self) -> String {
        format!("{:?}, named {}, {} polls", self.kind, self.named, self.polls)
    }

    async fn counted(&self) -> Money {
        let counted = counted(&self.agent.usage().await.unwrap());
        let taken = self.till.taken();
        assert!(counted.micros() >= taken.micros(), "{}: {counted} of {taken}", self.about());
        counted
    }

    /// Gives a call up, and answers whether it was done before.
    async fn run(&self) -> bool {
        let caller = Caller::new(&self.agent, &self.server.url("/joke"), self.named);
        let done = polled(caller.call(), self.polls).await.is_some();
        self.counted().await;
        let mut last = None;
        for _ in 0..CALLS {
            let called = tokio::time::timeout(PATIENCE, self.call_until_free(&caller)).await;
            last = Some(called.unwrap_or_else(|_| panic!("{}: no turn", self.about())));
            self.counted().await;
            let known = self.agent.known().await.unwrap();
            if known.iter().all(|known| known.unresolved.is_none()) {
                break;
            }
        }
        let last = last.unwrap();
        let error = last.as_ref().err().and_then(|error| error.payment());
        assert!(
            match self.kind {
                Kind::Declining => matches!(error, Some(PaymentError::Declined(_))),
                Kind::V1 => last.is_ok() || matches!(error, Some(PaymentError::Unknown)),
                _ => last.is_ok(),
            },
            "{}: {last:?}",
            self.about()
        );
        // Whoever was given up may be releasing its hold still.
        let (started, exact) = (Instant::now(), times(self.till.charges()));
        while !self.is_right(self.counted().await, exact) {
            assert!(started.elapsed() < PATIENCE, "{}: not {exact}", self.about());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        done
    }

    /// What was given up is in flight until it is released, and nothing is left for others.
    async fn call_until_free(&self, caller: &Caller) -> reqwest_middleware::Result<Response> {
        loop {
            let result = caller.call().await;
            match result.as_ref().err().and_then(|error| error.payment()) {
                Some(PaymentError::Refused(Reason::Policy(_))) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                _ => return result,
            }
        }
    }

    /// What was given up after it was written down may never have been sent, and these two do not
    /// say so to whoever repeats it.
    fn is_right(&self, counted: Money, exact: Money) -> bool {
        let unsaid = [Kind::V1, Kind::Credited].contains(&self.kind);
        let more = exact.micros().checked_add(TOP_UP.micros()).unwrap();
        counted == exact || unsaid && counted.micros() == more
    }
}

async fn at_every_poll(in_file: bool) {
    let stripe = tokenizer().await;
    let folder = tempfile::tempdir().unwrap();
    let (started, mut given_up) = (Instant::now(), 0);
    for kind in KINDS {
        for named in [true, false] {
            for polls in 1.. {
                let path = folder.path().join(format!("{kind:?} {named} {polls}"));
                let state = in_file.then_some(path.as_path());
                let trial = Trial::of(kind, named, polls, state, &stripe.url("")).await;
                if trial.run().await {
                    // Two round trips to the provider, and one to the tokenizer.
                    assert!(polls > 3, "{kind:?}: done after {polls}");
                    break;
                }
                given_up += 1;
            }
        }
    }
    println!("{given_up} calls were given up, {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_given_up_at_any_poll_is_charged_once_at_most() {
    at_every_poll(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_given_up_at_any_poll_is_charged_once_at_most_by_an_agent_with_a_file() {
    at_every_poll(true).await;
}
