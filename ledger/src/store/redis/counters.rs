//! Counters in Redis, which all processes of a ledger share.

use std::fmt;
use std::sync::Arc;

use redis::{FromRedisValue as _, Value};

use super::{Core, Failure, Redis};
use crate::counters::{Count, Counter, SLOTS};
use crate::store::StoreError;

/// Counters in the Redis of a ledger. The time is Redis's.
pub struct RedisCounters(Arc<Core>);

impl Redis {
    pub(crate) fn counters(&self) -> RedisCounters {
        RedisCounters(self.core.clone())
    }
}

impl RedisCounters {
    /// One call, which is not repeated: it may have counted.
    pub(crate) async fn add(
        &self,
        counter: Counter<'_>,
        amount: i64,
        limit: i64,
    ) -> Result<Count, StoreError> {
        let core = &*self.0;
        let mut call = core.scripts.count.call();
        call.key(core.keys.counter(&counter)).arg(counter.slot_seconds()).arg(SLOTS);
        let answer = call.arg(amount).arg(limit).run(&core.link).await;
        read(answer.map_err(Failure::from)?)
    }
}

fn read(answer: Value) -> Result<Count, StoreError> {
    let (word, total) = <(String, i64)>::from_redis_value(answer).map_err(StoreError::new)?;
    match word.as_str() {
        "OK" => Ok(Count::Added { total }),
        "FULL" => Ok(Count::Full { total }),
        _ => Err(StoreError::new("a counter answers what this version does not know")),
    }
}

impl fmt::Debug for RedisCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCounters").field("keys", &self.0.keys).finish_non_exhaustive()
    }
}
