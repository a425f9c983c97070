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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use farebox_protocol::usd;
    use http::Method;

    use super::*;
    use crate::approval::{ApprovalId, Approver};

    /// An approver that answers as its script says, given how often and when it was asked.
    struct Script<F>(F, Mutex<Vec<Duration>>, Instant);

    impl<F> Script<F> {
        fn new(script: F) -> Script<F> {
            Script(script, Mutex::default(), Instant::now())
        }

        fn asked_at_seconds(&self) -> Vec<u64> {
            self.1.lock().unwrap().iter().map(Duration::as_secs).collect()
        }
    }

    impl<F> Approver for Script<F>
    where
        F: Fn(usize) -> Option<Result<Answer, ApproverError>> + Send + Sync + 'static,
    {
        async fn ask(&self, _: &Question) -> Result<Answer, ApproverError> {
            let times = {
                let mut times = self.1.lock().unwrap();
                times.push(self.2.elapsed());
                times.len()
            };
            match self.0(times) {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    async fn ask<A: Approver>(approver: &A, seconds: u64) -> Result<Waited, ApproverError> {
        let url = "https://api.example.com/joke".parse().unwrap();
        let id = ApprovalId::from_bytes([1; 16]);
        let question = Question::new(id, 1_700_000_000, &Method::GET, &url, usd!("0.02"));
        wait(approver, &question, Pace::default(), Duration::from_secs(seconds)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_pending_question_is_looked_at_less_and_less_often() {
        let approver = Script::new(|times| {
            Some(Ok(if times < 8 { Answer::Pending } else { Answer::Approved }))
        });
        assert_eq!(ask(&approver, 3_600).await.unwrap(), Waited::Approved);
        assert_eq!(approver.asked_at_seconds(), [0, 1, 3, 7, 15, 30, 45, 60]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_in_time_is_a_result_of_its_own() {
        let silent = Script::new(|_| Some(Ok(Answer::Pending)));
        assert_eq!(ask(&silent, 20).await.unwrap(), Waited::TimedOut);
        assert_eq!(silent.2.elapsed(), Duration::from_secs(20));
        let stuck = Script::new(|_| None);
        assert_eq!(ask(&stuck, 20).await.unwrap(), Waited::TimedOut);
        assert_eq!(stuck.2.elapsed(), Duration::from_secs(20));
        assert_eq!(stuck.asked_at_seconds(), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_ends_the_waiting() {
        let approver = Script::new(|times| {
            Some(Ok(if times == 2 { Answer::Denied } else { Answer::Pending }))
        });
        assert_eq!(ask(&approver, 3_600).await.unwrap(), Waited::Denied);
        assert_eq!(approver.asked_at_seconds(), [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_approver_that_fails_is_asked_again_and_its_last_failure_told_at_the_end() {
        let recovering = Script::new(|times| {
            Some(if times < 4 { Err(ApproverError::Unavailable) } else { Ok(Answer::Approved) })
        });
        assert_eq!(ask(&recovering, 60).await.unwrap(), Waited::Approved);
        let failing = Script::new(|_| Some(Err(ApproverError::Status(500))));
        let error = ask(&failing, 60).await.unwrap_err();
        assert!(matches!(error, ApproverError::Status(500)), "{error:?}");
        assert_eq!(failing.2.elapsed(), Duration::from_secs(60));
        let answered = Script::new(|times| {
            Some(if times < 3 { Err(ApproverError::Unavailable) } else { Ok(Answer::Pending) })
        });
        assert_eq!(ask(&answered, 60).await.unwrap(), Waited::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_terminal_is_told_at_once() {
        let approver = Script::new(|_| Some(Err(ApproverError::NoTerminal)));
        let error = ask(&approver, 3_600).await.unwrap_err();
        assert!(matches!(error, ApproverError::NoTerminal), "{error:?}");
        assert_eq!(approver.asked_at_seconds(), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_gets_five_seconds_and_no_limit_overflows() {
        let stuck = Script::new(|_| None);
        assert_eq!(ask(&stuck, 0).await.unwrap(), Waited::TimedOut);
        assert_eq!(stuck.2.elapsed(), SHORTEST);
        let stuck = Script::new(|_| None);
        assert_eq!(ask(&stuck, u64::MAX).await.unwrap(), Waited::TimedOut);
        assert!(stuck.2.elapsed() >= LONGEST);
    }
}
