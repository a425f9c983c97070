//! Opening a ledger in Redis: is the server safe for money, is it ours, and is it all there.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::{ErrorKind, RedisError, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::address::{Address, Kind};
use super::keys::{self, Keys};
use super::link::Link;
use super::turns::Turns;
use super::{Core, Scripts};
use crate::store::{FirstRecord, OpenError};

/// The field of a bucket that says that it has lost nothing.
const EPOCH: &str = "epoch";
/// The oldest version of Redis whose scripts refuse keys that they did not name.
const VERSION_MIN: u32 = 7;

/// What stands under the ledger's first key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Beginning {
    first: FirstRecord,
    epoch: String,
    /// Whether all buckets were made: until then, whoever starts goes on with it.
    made: bool,
}

pub(super) async fn open(
    address: &Address,
    first: Option<&FirstRecord>,
) -> Result<(Core, FirstRecord), OpenError> {
    let mut place = Place::connect(address).await?;
    let replicas = place.check_servers().await?;
    let beginning = match place.beginning().await? {
        Some(found) => {
            let accepted = found.first.accept(first)?;
            let made = Beginning { first: accepted, ..found.clone() };
            place.finish(&found, made).await?
        }
        None => place.begin(first).await?,
    };
    let waits = address.wait.unwrap_or(replicas > 0);
    let process = place.random()?;
    let link = place.link;
    let careful = Mutex::new(Link::open(address).await.map_err(|e| unreachable(address, &e))?);
    let core = Core {
        keys: place.keys,
        epoch: beginning.epoch,
        link,
        careful,
        waits,
        is_cluster: address.kind == Kind::Cluster,
        scripts: Scripts::new(),
        turns: Turns::default(),
        process,
        next: AtomicU64::new(0),
    };
    Ok((core, beginning.first))
}

/// Makes every bucket new that has lost its records, and answers how many those were.
pub(super) async fn adopt(address: &Address) -> Result<usize, OpenError> {
    let mut place = Place::connect(address).await?;
    place.check_servers().await?;
    let epochs = place.epochs().await?;
    let Some(beginning) = place.beginning().await? else {
        // What the ledger was made for is lost too; the next start says it again.
        let all = epochs.iter().flatten().count();
        for bucket in keys::BUCKETS {
            let bucket = place.keys.bucket(bucket);
            place.ask::<Value>(redis::cmd("HDEL").arg(bucket).arg(EPOCH)).await?;
        }
        return Ok(epochs.len() - all + 1);
    };
    let mut adopted = 0;
    for (bucket, epoch) in keys::BUCKETS.zip(epochs) {
        if epoch.as_ref() != Some(&beginning.epoch) {
            adopted += 1;
            let key = place.keys.bucket(bucket);
            place
                .ask::<Value>(redis::cmd("HSET").arg(key).arg(EPOCH).arg(&beginning.epoch))
                .await?;
        }
    }
    Ok(adopted)
}

/// A server, or several, and the ledger that is to be there.
struct Place<'a> {
    address: &'a Address,
    keys: Keys,
    link: Link,
}

fn unreachable(address: &Address, error: &RedisError) -> OpenError {
    let (address, text) = (address.place(), error.to_string());
    if text.contains("cluster support disabled") {
        let reason = "it is no cluster: use a redis URL".to_owned();
        return OpenError::Unsafe { address, reason };
    }
    let is_locked = error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"));
    let reason = if is_locked { "it wants another user or password".to_owned() } else { text };
    OpenError::Unreachable { address, reason: reason.replace('\n', " ") }
}

impl<'a> Place<'a> {
    async fn connect(address: &'a Address) -> Result<Place<'a>, OpenError> {
        let link = Link::open(address).await.map_err(|error| unreachable(address, &error))?;
        Ok(Place { address, keys: Keys::new(address.ledger.clone()), link })
    }

    async fn ask<T: redis::FromRedisValue>(
        &mut self,
        command: &redis::Cmd,
    ) -> Result<T, OpenError> {
        let answer = command.query_async(&mut self.link).await;
        answer.map_err(|error| unreachable(self.address, &error))
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> OpenError {
        let reason = format!("what it holds cannot be read: {reason}");
        OpenError::Unreachable { address: self.address.place(), reason }
    }

    fn random(&self) -> Result<u64, OpenError> {
        getrandom::u64().map_err(|error| self.damaged(error))
    }

    /// Whether every primary keeps what it is told; the least number of replicas that one has.
    async fn check_servers(&mut self) -> Result<u32, OpenError> {
        let cluster = self.link.cluster().await.map_err(|e| unreachable(self.address, &e))?;
        let infos: Vec<String> = match cluster {
            Some(mut link) => {
                let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let answer = link.route_command(redis::cmd("INFO"), all).await;
                let answer = answer.and_then(|value| {
                    redis::from_redis_value::<HashMap<String, String>>(value).map_err(Into::into)
                });
                answer.map_err(|error| unreachable(self.address, &error))?.into_values().collect()
            }
            None => vec![self.ask(&redis::cmd("INFO")).await?],
        };
        let mut replicas = u32::MAX;
        for info in &infos {
            replicas = replicas.min(self.check_server(info)?);
        }
        Ok(replicas)
    }

    fn check_server(&self, info: &str) -> Result<u32, OpenError> {
        let value = |name: &str| {
            let lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value.trim())
        };
        let refuse = |reason: &str| {
            let (address, reason) = (self.address.place(), reason.to_owned());
            Err(OpenError::Unsafe { address, reason })
        };
        let version = value("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < VERSION_MIN) {
            return refuse(&format!("it is Redis {version}; use {VERSION_MIN}.0 or newer"));
        }
        if value("maxmemory_policy") != "noeviction" {
            return refuse(
                "it may forget keys when memory is short: set maxmemory-policy noeviction",
            );
        }
        if value("aof_enabled") != "1" && !self.address.volatile {
            return refuse(
                "it forgets what it was told when it stops: set appendonly yes, or add ?volatile=1 \
                 to the URL if that is wanted",
            );
        }
        if value("role") != "master" {
            return refuse("it is a replica: use its primary's address");
        }
        match (value("cluster_enabled"), &self.address.kind) {
            ("1", Kind::Single | Kind::Sentinel(_)) => {
                return refuse("it is part of a cluster: use a redis+cluster URL");
            }
            ("0", Kind::Cluster) => return refuse("it is no cluster: use a redis URL"),
            _ => {}
        }
        Ok(value("connected_slaves").parse().unwrap_or(0))
    }

    async fn beginning(&mut self) -> Result<Option<Beginning>, OpenError> {
        let text: Option<String> = self.ask(redis::cmd("GET").arg(self.keys.first())).await?;
        text.map(|text| serde_json::from_str(&text)).transpose().map_err(|e| self.damaged(e))
    }

    /// Makes a new ledger, unless records of an old one are there.
    async fn begin(&mut self, first: Option<&FirstRecord>) -> Result<Beginning, OpenError> {
        if self.epochs().await?.iter().any(Option::is_some) {
            return Err(OpenError::Lost { address: self.address.place() });
        }
        let Some(first) = first else {
            let (address, reason) = (self.address.place(), "there is no ledger".to_owned());
            return Err(OpenError::Unreachable { address, reason });
        };
        tracing::warn!(ledger = self.address.ledger, "a new ledger is made");
        let epoch = format!("{:016x}", self.random()?);
        let begun = Beginning { first: first.clone(), epoch, made: false };
        let text = serde_json::to_string(&begun).map_err(|error| self.damaged(error))?;
        let _: Value =
            self.ask(redis::cmd("SET").arg(self.keys.first()).arg(text).arg("NX")).await?;
        // Another process may have been first.
        let Some(found) = self.beginning().await? else { return Err(self.damaged("it is gone")) };
        let accepted = Beginning { first: found.first.accept(Some(first))?, ..found.clone() };
        self.finish(&found, accepted).await
    }

    /// Makes what is missing of a ledger that was begun, and writes what is new of `wanted`.
    async fn finish(
        &mut self,
        found: &Beginning,
        mut wanted: Beginning,
    ) -> Result<Beginning, OpenError> {
        if found.made {
            self.report_lost(&found.epoch).await?;
        } else {
            for bucket in keys::BUCKETS {
                let key = self.keys.bucket(bucket);
                self.ask::<Value>(redis::cmd("HSETNX").arg(key).arg(EPOCH).arg(&found.epoch))
                    .await?;
            }
            wanted.made = true;
        }
        if !found.made || wanted.first != found.first {
            let text = serde_json::to_string(&wanted).map_err(|error| self.damaged(error))?;
            let _: Value = self.ask(redis::cmd("SET").arg(self.keys.first()).arg(text)).await?;
        }
        Ok(wanted)
    }

    /// Buckets that lost their records answer nothing until they are adopted; the others serve.
    async fn report_lost(&mut self, epoch: &str) -> Result<(), OpenError> {
        let epochs = self.epochs().await?;
        let lost = epochs.iter().filter(|found| found.as_deref() != Some(epoch)).count();
        if lost == epochs.len() {
            return Err(OpenError::Lost { address: self.address.place() });
        }
        if lost > 0 {
            tracing::error!(
                "{lost} of {} parts of the ledger have lost their records: restore them, or \
                 accept the loss with `farebox ledger adopt`",
                epochs.len()
            );
        }
        Ok(())
    }

    async fn epochs(&mut self) -> Result<Vec<Option<String>>, OpenError> {
        let mut epochs = Vec::new();
        for bucket in keys::BUCKETS {
            let key = self.keys.bucket(bucket);
            epochs.push(self.ask(redis::cmd("HGET").arg(key).arg(EPOCH)).await?);
        }
        Ok(epochs)
    }
}
