//! Settles that share a script: while one call is under way, those that come meanwhile wait, and go
//! together in the next.

use std::collections::HashMap;
use std::sync::Arc;

use farebox_protocol::{Micros, PayerId};
use redis::{FromRedisValue as _, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::keys;
use super::{Core, Failure, Hot, REPEAT_FOR, Tries};
use crate::book::{ReservationId, Route};
use crate::store::StoreError;

/// One settle that the script can do: a request without a key, spent at one route at most.
#[derive(Clone, Debug)]
pub(super) struct Settle {
    pub(super) payer: PayerId,
    pub(super) id: ReservationId,
    pub(super) operation: String,
    pub(super) line: Option<(Route, Micros)>,
}

/// The most settles that share a call.
const TOGETHER_MAX: usize = 64;

type Answer = Result<Hot, StoreError>;
/// A settle, who waits for it, and since when.
type Job = (Settle, oneshot::Sender<Answer>, Instant);

/// Where settles are handed in.
#[derive(Clone, Debug)]
pub(super) struct Settles(mpsc::UnboundedSender<Job>);

impl Settles {
    /// Starts the task that sends them. It ends when nobody can hand one in any more.
    pub(super) fn start(core: Arc<Core>) -> Settles {
        let (sender, jobs) = mpsc::unbounded_channel();
        tokio::spawn(run(core, jobs));
        Settles(sender)
    }

    pub(super) async fn settle(&self, settle: Settle) -> Answer {
        let (done, answer) = oneshot::channel();
        let stopped = |_| StoreError::new("the task that settles has stopped");
        self.0.send((settle, done, Instant::now())).map_err(|_| stopped(()))?;
        answer.await.map_err(|_| stopped(()))?
    }
}

/// On one server all settles may share a call; on a cluster, those of a bucket.
async fn run(core: Arc<Core>, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let mut waiting: HashMap<u8, Vec<Job>> = HashMap::new();
    let mut under_way: JoinSet<u8> = JoinSet::new();
    let mut busy: Vec<u8> = Vec::new();
    let group = |payer: &PayerId| if core.is_cluster { keys::bucket_of(payer) } else { 0 };
    loop {
        let freed = tokio::select! {
            job = jobs.recv() => {
                let Some(job) = job else { break };
                waiting.entry(group(&job.0.payer)).or_default().push(job);
                while let Ok(job) = jobs.try_recv() {
                    waiting.entry(group(&job.0.payer)).or_default().push(job);
                }
                None
            }
            Some(done) = under_way.join_next() => done.ok(),
        };
        if let Some(freed) = freed {
            busy.retain(|group| *group != freed);
        }
        let ready: Vec<u8> = waiting.keys().copied().filter(|g| !busy.contains(g)).collect();
        for group in ready {
            let Some(mut batch) = waiting.remove(&group) else { continue };
            batch = without_old(batch);
            if batch.len() > TOGETHER_MAX {
                waiting.insert(group, batch.split_off(TOGETHER_MAX));
            }
            if batch.is_empty() {
                continue;
            }
            busy.push(group);
            let core = core.clone();
            under_way.spawn(async move {
                send(&core, batch).await;
                group
            });
        }
    }
    while under_way.join_next().await.is_some() {}
}

/// Those that waited for too long, behind calls that were not answered, are not sent any more.
fn without_old(batch: Vec<Job>) -> Vec<Job> {
    let (old, young): (Vec<Job>, _) =
        batch.into_iter().partition(|(_, _, since)| since.elapsed() >= REPEAT_FOR);
    for (_, done, _) in old {
        let _ = done.send(Err(StoreError::new("too many settles wait for it")));
    }
    young
}

async fn send(core: &Core, batch: Vec<Job>) {
    let settles: Vec<&Settle> = batch.iter().map(|(settle, _, _)| settle).collect();
    match core.settle(&settles).await {
        Ok(answers) => {
            for ((_, done, _), answer) in batch.into_iter().zip(answers) {
                let _ = done.send(answer); // the caller may have gone
            }
        }
        Err(error) => {
            for (_, done, _) in batch {
                let _ = done.send(Err(error.clone()));
            }
        }
    }
}

impl Core {
    /// Sends settles as one script call, and repeats it until it is answered: what was done is
    /// found by its operation.
    async fn settle(&self, settles: &[&Settle]) -> Result<Vec<Answer>, StoreError> {
        let mut week = keys::week_of(self.guess_now());
        let mut tries = Tries::new();
        loop {
            let answers = match self.settle_once(settles, week).await {
                Ok(answers) => answers,
                Err(failure) => {
                    tries.after(failure).await?;
                    continue;
                }
            };
            // The script's clock is in another week than ours: what it did not do, it does now.
            let other = answers.iter().find_map(|answer| match answer {
                Ok(Hot::Week { at }) => Some(keys::week_of(*at)),
                _ => None,
            });
            match other {
                Some(other) => week = other,
                None => return Ok(answers),
            }
        }
    }

    async fn settle_once(&self, settles: &[&Settle], week: i64) -> Result<Vec<Answer>, Failure> {
        let mut call = self.scripts.settle.call();
        call.arg(&self.epoch).arg(week);
        for Settle { payer, id, operation, line } in settles {
            call.key(self.keys.bucket(keys::bucket_of(payer)))
                .key(self.keys.book(payer))
                .key(self.keys.usage(payer, week))
                .key(self.keys.answer(payer, operation));
            let spent = line.as_ref().map_or(0, |(_, spent)| spent.get());
            let route = line.as_ref().map_or("", |(route, _)| route.as_str());
            call.arg(keys::reservation(payer, id)).arg(route).arg(spent);
        }
        let answers = Vec::<Value>::from_redis_value(call.run(&self.link).await?);
        let answers = answers.map_err(|error| Failure::Final(StoreError::new(error)))?;
        let judge = |answer| match Hot::read(answer) {
            Ok(hot) => Ok(Ok(hot)),
            Err(Failure::Final(error)) => Ok(Err(error)),
            Err(again) => Err(again),
        };
        answers.into_iter().map(judge).collect()
    }
}
