//! Connections: to one server, to a cluster, or to whichever server sentinels name.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{
    ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection,
};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo as _, Pipeline,
    RedisFuture, RedisResult, TlsMode, Value,
};
use tokio::sync::Mutex;

use super::address::{Address, Kind};

/// How long a server has to answer. Longer than [`super::WAIT_MILLIS`].
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// A connection that everybody shares, and that connects again when it was cut.
#[derive(Clone)]
pub(super) enum Link {
    Single(ConnectionManager),
    Cluster(ClusterConnection),
    Sentinel(Watched),
}

impl Link {
    pub(super) async fn open(address: &Address) -> RedisResult<Link> {
        if address.tls && rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another one may have been installed meanwhile; that one is as good.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        match &address.kind {
            Kind::Single => {
                let client = Client::open(address.url(&address.hosts[0]))?;
                let config = ConnectionManagerConfig::new()
                    .set_response_timeout(Some(ANSWER_WITHIN))
                    .set_connection_timeout(Some(CONNECT_WITHIN))
                    .set_number_of_retries(1);
                ConnectionManager::new_with_config(client, config).await.map(Link::Single)
            }
            Kind::Cluster => {
                let nodes = address.hosts.iter().map(|host| address.url(host));
                let client = ClusterClientBuilder::new(nodes)
                    .response_timeout(ANSWER_WITHIN)
                    .connection_timeout(CONNECT_WITHIN)
                    .build()?;
                client.get_async_connection().await.map(Link::Cluster)
            }
            Kind::Sentinel(service) => Watched::open(address, service).await.map(Link::Sentinel),
        }
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Link::Single(link) => link.req_packed_command(cmd),
            Link::Cluster(link) => link.req_packed_command(cmd),
            Link::Sentinel(link) => Box::pin(async move {
                let mut connection = link.connection().await?;
                let answer = connection.req_packed_command(cmd).await;
                link.judge(answer).await
            }),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Link::Single(link) => link.req_packed_commands(pipeline, offset, count),
            Link::Cluster(link) => link.req_packed_commands(pipeline, offset, count),
            Link::Sentinel(link) => Box::pin(async move {
                let mut connection = link.connection().await?;
                let answer = connection.req_packed_commands(pipeline, offset, count).await;
                link.judge(answer).await
            }),
        }
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// A connection to the primary that sentinels name; they are asked again after a failure.
#[derive(Clone)]
pub(super) struct Watched {
    sentinels: Arc<Mutex<SentinelClient>>,
    connection: Arc<Mutex<Option<MultiplexedConnection>>>,
}

impl Watched {
    async fn open(address: &Address, service: &str) -> RedisResult<Watched> {
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
        let watched = Watched {
            sentinels: Arc::new(Mutex::new(builder.build()?)),
            connection: Arc::default(),
        };
        watched.connection().await?;
        Ok(watched)
    }

    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = &*slot {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_connection_timeout(Some(CONNECT_WITHIN));
        let mut sentinels = self.sentinels.lock().await;
        let found = sentinels.get_async_connection_with_config(&config);
        let connection = tokio::time::timeout(CONNECT_WITHIN * 2, found).await;
        let connection = connection.map_err(|_| timed_out())??;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// After a failure, the next call asks the sentinels. A server that lost its office answers
    /// that it is read-only.
    async fn judge<T>(&self, answer: RedisResult<T>) -> RedisResult<T> {
        if let Err(error) = &answer
            && (error.is_io_error() || error.is_timeout() || error.code() == Some("READONLY"))
        {
            *self.connection.lock().await = None;
        }
        answer
    }
}

fn timed_out() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "the sentinels do not answer")
}
