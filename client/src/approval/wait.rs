//! Waiting for an answer.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::approval::{Answer, ApproverError, DynApprover, Question};

/// A question that could not even be put is of no use.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long to wait between two looks at a question: twice as long each time, up to `longest`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { first: Duration::from_secs(1), longest: Duration::from_secs(15) }
    }
}

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Approved,
    Denied,
    /// The question is open; it can be asked again.
    TimedOut,
}

/// Asks until there is an answer, for `limit`: at least five seconds, at most 30 days.
///
/// An error of the approver is no answer. The last one is returned when the time is up, and
/// [`ApproverError::NoTerminal`] at once, since waiting does not make a terminal. After any of
/// them, as after [`Waited::TimedOut`], the question is open.
pub(crate) async fn wait(
    approver: &dyn DynApprover,
    question: &Question,
    pace: Pace,
    limit: Duration,
) -> Result<Waited, ApproverError> {
    let deadline = Instant::now() + limit.clamp(SHORTEST, LONGEST);
    let (mut pause, mut last) = (pace.first, Ok(Waited::TimedOut));
    loop {
        let Ok(asked) = timeout_at(deadline, approver.ask_boxed(question)).await else {
            return last;
        };
        last = match asked {
            Ok(Answer::Approved) => return Ok(Waited::Approved),
            Ok(Answer::Denied) => return Ok(Waited::Denied),
            Ok(Answer::Pending) => Ok(Waited::TimedOut),
            Err(ApproverError::NoTerminal) => return Err(ApproverError::NoTerminal),
            Err(error) => Err(error),
        };
        let next = Instant::now() + pause;
        if next >= deadline {
            sleep_until(deadline).await;
            return last;
        }
        sleep_until(next).await;
        pause = pause.saturating_mul(2).min(pace.longest);
    }
}
