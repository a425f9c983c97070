//! Connections: to one server, to a cluster, or to whichever server sentinels name.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo as _, Pipeline,
    RedisError, RedisFuture, RedisResult, TlsMode, Value,
};
use tokio::sync::Mutex;

use super::address::{Address, Kind};

/// How long a server has to answer. Longer than [`super::WAIT_MILLIS`].
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How long a cluster's client may send a command again by itself. Left alone, it would for
/// minutes.
const CLUSTER_WITHIN: Duration = Duration::from_secs(3);
const CLUSTER_RETRIES: u32 = 8;
const CLUSTER_PAUSE_MILLIS: (u64, u64) = (20, 500);

/// A connection that everybody shares.
///
/// After a failure that another connection may not have, it is not used again, and the next call
/// connects anew: a server that is gone without a word never closes a connection, and one that
/// lost its office keeps it and refuses to write.
#[derive(Clone)]
pub(super) struct Link(Arc<Shared>);

struct Shared {
    source: Source,
    slot: std::sync::Mutex<Slot>,
    /// Held by whoever connects; how the last attempt failed.
    opening: Mutex<Option<RedisError>>,
    attempts: AtomicU64,
}

/// Where connections come from.
enum Source {
    Server(Client),
    Cluster(ClusterClient),
    Sentinels(Mutex<SentinelClient>),
}

#[derive(Default)]
struct Slot {
    wire: Option<Wire>,
    /// Of this wire: another one has another number.
    number: u64,
}

#[derive(Clone)]
enum Wire {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    pub(super) async fn open(address: &Address) -> RedisResult<Link> {
        if address.tls && rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another one may have been installed meanwhile; that one is as good.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let link = Link(Arc::new(Shared {
            source: Source::of(address)?,
            slot: std::sync::Mutex::default(),
            opening: Mutex::default(),
            attempts: AtomicU64::new(0),
        }));
        link.wire().await?;
        Ok(link)
    }

    /// The connection, and its number. Whoever waited while another tried in vain does not try.
    async fn wire(&self) -> RedisResult<(u64, Wire)> {
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        let shared = &*self.0;
        let seen = shared.attempts.load(Ordering::Acquire);
        let mut failed = shared.opening.lock().await;
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        if let (true, Some(error)) = (shared.attempts.load(Ordering::Acquire) != seen, &*failed) {
            return Err(error.clone());
        }
        let opened = tokio::time::timeout(CONNECT_WITHIN * 2, shared.source.connect()).await;
        shared.attempts.fetch_add(1, Ordering::Release);
        match opened.unwrap_or_else(|_| Err(timed_out().into())) {
            Ok(wire) => {
                *failed = None;
                let mut slot = shared.slot.lock().unwrap_or_else(PoisonError::into_inner);
                (slot.number, slot.wire) = (slot.number + 1, Some(wire.clone()));
                Ok((slot.number, wire))
            }
            Err(error) => {
                *failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn ready(&self) -> Option<(u64, Wire)> {
        let slot = self.0.slot.lock().unwrap_or_else(PoisonError::into_inner);
        Some((slot.number, slot.wire.clone()?))
    }

    /// Puts the connection of this number away if another one may do better.
    fn judge<T>(&self, number: u64, answer: RedisResult<T>) -> RedisResult<T> {
        if let Err(error) = &answer
            && (error.is_io_error() || matches!(error.code(), Some("READONLY" | "UNBLOCKED")))
        {
            let mut slot = self.0.slot.lock().unwrap_or_else(PoisonError::into_inner);
            if slot.number == number {
                slot.wire = None;
            }
        }
        answer
    }

    pub(super) async fn cluster(&self) -> RedisResult<Option<ClusterConnection>> {
        Ok(match self.wire().await? {
            (_, Wire::Cluster(cluster)) => Some(cluster),
            (_, Wire::Server(_)) => None,
        })
    }
}

impl Source {
    fn of(address: &Address) -> RedisResult<Source> {
        Ok(match &address.kind {
            Kind::Single => Source::Server(Client::open(address.url(&address.hosts[0]))?),
            Kind::Cluster => {
                let nodes = address.hosts.iter().map(|host| address.url(host));
                let (shortest, longest) = CLUSTER_PAUSE_MILLIS;
                let client = ClusterClientBuilder::new(nodes)
                    .response_timeout(ANSWER_WITHIN)
                    .connection_timeout(CONNECT_WITHIN)
                    .overall_response_timeout(Some(CLUSTER_WITHIN))
                    .retries(CLUSTER_RETRIES)
                    .min_retry_wait(shortest)
                    .max_retry_wait(longest);
                Source::Cluster(client.build()?)
            }
            Kind::Sentinel(service) => Source::Sentinels(Mutex::new(sentinels(address, service)?)),
        })
    }

    async fn connect(&self) -> RedisResult<Wire> {
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_connection_timeout(Some(CONNECT_WITHIN));
        match self {
            Source::Server(client) => {
                client.get_multiplexed_async_connection_with_config(&config).await.map(Wire::Server)
            }
            Source::Cluster(client) => client.get_async_connection().await.map(Wire::Cluster),
            Source::Sentinels(sentinels) => {
                let mut sentinels = sentinels.lock().await;
                sentinels.get_async_connection_with_config(&config).await.map(Wire::Server)
            }
        }
    }
}

fn sentinels(address: &Address, service: &str) -> RedisResult<SentinelClient> {
    let infos = address.hosts.iter().map(|host| address.url(host).into_connection_info());
    let infos: Vec<_> = infos.collect::<RedisResult<_>>()?;
    let sentinels: Vec<ConnectionAddr> = infos.iter().map(|info| info.addr().clone()).collect();
    let primary = SentinelServerType::Master;
    let mut builder = SentinelClientBuilder::new(sentinels, service, primary)?
        .set_client_to_redis_db(address.database);
    if let Some(info) = infos.first() {
        let info = info.redis_settings();
        if let Some(user) = info.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = info.password() {
            builder = builder.set_client_to_redis_password(password);
        }
    }
    if address.tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    builder.build()
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let (number, mut wire) = self.wire().await?;
            let answer = match &mut wire {
                Wire::Server(wire) => wire.req_packed_command(cmd).await,
                Wire::Cluster(wire) => wire.req_packed_command(cmd).await,
            };
            self.judge(number, answer.and_then(Value::extract_error))
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let (number, mut wire) = self.wire().await?;
            let answers = match &mut wire {
                Wire::Server(wire) => wire.req_packed_commands(pipeline, offset, count).await,
                Wire::Cluster(wire) => wire.req_packed_commands(pipeline, offset, count).await,
            };
            let answers = answers.and_then(|answers| {
                answers.into_iter().map(Value::extract_error).collect::<RedisResult<Vec<_>>>()
            });
            self.judge(number, answers)
        })
    }

    fn get_db(&self) -> i64 {
        0
    }
}

fn timed_out() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "nobody answers")
}
