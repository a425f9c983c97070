//! Real Redis servers on loopback, and what happens to them.
//!
//! They are Debian's `redis-server`, each with a port and a folder of its own, and are killed when
//! they are dropped. A method that changes a server returns when the change is done.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, TlsCertificates};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::Instant;

use super::eventually;

/// No change takes longer. The longest is a cluster's second vote for the same replica: 10 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server writes to its disk, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// Nothing: a restart forgets everything.
    #[default]
    None,
    /// All commands, flushed once a second.
    EverySecond,
    /// All commands, flushed before they are answered.
    Always,
}

/// How a server is set up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) persistence: Persistence,
    /// Letters and digits: it stands in a URL.
    pub(crate) password: Option<&'static str>,
    /// With a certificate of its own, see [`Redis::certificate`], and no port without TLS. For one
    /// server alone: others do not trust it.
    pub(crate) tls: bool,
}

impl Setup {
    pub(crate) fn persistent(persistence: Persistence) -> Setup {
        Setup { persistence, ..Setup::default() }
    }

    fn arguments(self, home: &Path) -> Vec<String> {
        let home = home.display();
        let (appends, flushes) = match self.persistence {
            Persistence::None => ("no", "no"),
            Persistence::EverySecond => ("yes", "everysec"),
            Persistence::Always => ("yes", "always"),
        };
        let mut arguments = words(&format!(
            "--dir {home}/data --logfile {home}/log --bind 127.0.0.1 --maxmemory-policy noeviction \
             --repl-diskless-sync-delay 0 --appendonly {appends} --appendfsync {flushes} --save"
        ));
        arguments.push(String::new());
        if let Some(password) = self.password {
            arguments.extend(words(&format!("--requirepass {password} --masterauth {password}")));
        }
        if self.tls {
            arguments.extend(words(&format!(
                "--tls-cert-file {home}/cert.pem --tls-key-file {home}/key.pem \
                 --tls-ca-cert-file {home}/cert.pem --tls-auth-clients no --tls-replication yes"
            )));
        }
        arguments
    }
}

/// A server, alone or as a part of something. It is killed when this is dropped.
pub(crate) struct Redis {
    process: AsyncMutex<Child>,
    port: u16,
    setup: Setup,
    arguments: Vec<String>,
    home: TempDir,
}

impl Redis {
    pub(crate) async fn start(setup: Setup) -> Redis {
        Redis::start_with(setup, "").await
    }

    /// A server that copies this one, and is in step with it.
    pub(crate) async fn with_replica(&self) -> Redis {
        let replica =
            Redis::start_with(self.setup, &format!("--replicaof 127.0.0.1 {}", self.port)).await;
        let link = async || replica.info("master_link_status").await.unwrap_or_default();
        eventually(PATIENCE, link, |link| link == "up").await;
        // Online as it may be, it acknowledges nothing for up to a second.
        let has_all = async || self.reaches_replicas("PUBLISH nobody nothing").await;
        eventually(PATIENCE, has_all, |has_all| *has_all).await;
        replica
    }

    async fn start_with(setup: Setup, more: &str) -> Redis {
        let home = tempfile::tempdir().unwrap();
        if setup.tls {
            certify(home.path()).await;
        }
        let mut arguments = setup.arguments(home.path());
        arguments.extend(words(more));
        Redis::launch(home, setup, arguments).await
    }

    async fn launch(home: TempDir, setup: Setup, arguments: Vec<String>) -> Redis {
        std::fs::create_dir(home.path().join("data")).unwrap();
        let port = free_port();
        let process = AsyncMutex::new(spawn(port, setup, &arguments));
        let mut redis = Redis { process, port, setup, arguments, home };
        for _ in 0..10 {
            if redis.is_up().await {
                return redis;
            }
            redis.port = free_port();
            *redis.process.get_mut() = spawn(redis.port, setup, &redis.arguments);
        }
        panic!("no server came up: {}", redis.log());
    }

    /// Waits for it. It ends if something else took its port.
    async fn is_up(&self) -> bool {
        let pid = self.process.lock().await.id().unwrap().to_string();
        let started = Instant::now();
        while self.process.lock().await.try_wait().unwrap().is_none() {
            let is_ready = self.command::<String>("PING").await.is_ok();
            if is_ready && self.info("process_id").await.is_ok_and(|serving| serving == pid) {
                return true;
            }
            assert!(started.elapsed() < PATIENCE, "it does not come up: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Host and port.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where a ledger of this name is kept.
    pub(crate) fn url(&self, ledger: &str) -> String {
        format!("{}/0?ledger={ledger}", self.base_url())
    }

    fn base_url(&self) -> String {
        let scheme = if self.setup.tls { "rediss" } else { "redis" };
        let password = self.setup.password.map(|password| format!(":{password}@"));
        format!("{scheme}://{}{}", password.unwrap_or_default(), self.address())
    }

    /// What a client must trust if the server speaks TLS. For a program, it is `SSL_CERT_FILE`.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.home.path().join("cert.pem")
    }

    /// A connection of its own, that waits two seconds for an answer.
    pub(crate) async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let client = if self.setup.tls {
            let root_cert = Some(std::fs::read(self.certificate())?);
            Client::build_with_tls(self.base_url(), TlsCertificates { client_tls: None, root_cert })
        } else {
            Client::open(self.base_url())
        };
        let limit = Some(Duration::from_secs(2));
        let limits =
            AsyncConnectionConfig::new().set_connection_timeout(limit).set_response_timeout(limit);
        client?.get_multiplexed_async_connection_with_config(&limits).await
    }

    /// Runs a command, written as in `redis-cli` but without quotes.
    pub(crate) async fn command<T: FromRedisValue>(&self, command: &str) -> RedisResult<T> {
        parse(command).query_async(&mut self.connect().await?).await
    }

    /// Runs a command that writes; whether all its replicas have it within 1.5 s.
    async fn reaches_replicas(&self, command: &str) -> bool {
        let replicas: u32 = self.info("connected_slaves").await.unwrap().parse().unwrap();
        let mut pipe = redis::pipe();
        pipe.add_command(parse(command)).ignore().cmd("WAIT").arg(replicas).arg(1500);
        let [copies]: [u32; 1] =
            pipe.query_async(&mut self.connect().await.unwrap()).await.unwrap();
        copies == replicas
    }

    /// A field of INFO, or nothing.
    pub(crate) async fn info(&self, field: &str) -> RedisResult<String> {
        Ok(self::field(&self.command::<String>("INFO").await?, field).to_owned())
    }

    /// The processor time that it has used.
    pub(crate) async fn cpu_time(&self) -> Duration {
        let info: String = self.command("INFO cpu").await.unwrap();
        let time = |name| Duration::from_secs_f64(field(&info, name).parse().unwrap());
        time("used_cpu_user") + time("used_cpu_sys")
    }

    /// kill -9, and the end of the process.
    pub(crate) async fn kill(&self) {
        self.process.lock().await.kill().await.unwrap();
    }

    /// It keeps its connections, and answers nobody.
    pub(crate) async fn pause(&self) {
        self.signal("-STOP").await;
    }

    pub(crate) async fn resume(&self) {
        self.signal("-CONT").await;
    }

    async fn signal(&self, signal: &str) {
        let pid = self.process.lock().await.id().expect("it runs").to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }

    /// Kills it if it runs, and starts it on the same port with what its disk holds.
    pub(crate) async fn restart(&self) {
        self.kill().await;
        *self.process.lock().await = spawn(self.port, self.setup, &self.arguments);
        assert!(self.is_up().await, "it does not restart: {}", self.log());
    }

    /// The same, with an empty disk.
    pub(crate) async fn restart_empty(&self) {
        self.kill().await;
        let data = self.home.path().join("data");
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::create_dir(&data).unwrap();
        self.restart().await;
    }
}

fn spawn(port: u16, setup: Setup, arguments: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match setup.tls {
        true => command.args(["--port", "0", "--tls-port", &port.to_string()]),
        false => command.args(["--port", &port.to_string()]),
    };
    command.kill_on_drop(true).spawn().expect("redis-server is installed: see scripts/test")
}

/// A port that nobody uses, and whose cluster bus (10000 higher) nobody uses. Both are below the
/// ports of outgoing connections, which would take the port of a server that is down.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        // Two runs at once do not begin at the same port.
        let next = std::process::id() * 97 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + u16::try_from(next % 10_000).expect("below 10000");
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}

async fn certify(home: &Path) {
    let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
                   -subj /CN=farebox -addext subjectAltName=IP:127.0.0.1 \
                   -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem";
    let mut openssl = Command::new("openssl");
    let made = openssl.args(words(request)).current_dir(home).output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn parse(command: &str) -> Cmd {
    let mut words = command.split_whitespace();
    let mut command = redis::cmd(words.next().expect("a command has a name"));
    command.arg(words.collect::<Vec<_>>());
    command
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    info.lines().find_map(value).unwrap_or_default()
}

/// Three primaries that share the slots, each with a replica.
pub(crate) struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

    pub(crate) async fn start(setup: Setup) -> Cluster {
        let more = "--cluster-enabled yes --cluster-node-timeout 2000";
        let nodes = join_all((0..6).map(|_| Redis::start_with(setup, more))).await;
        let cluster = Cluster { nodes };
        let (primaries, replicas) = cluster.nodes.split_at(3);
        for (node, (first, last)) in primaries.iter().zip(Cluster::SLOTS) {
            let () = node.command(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")).await.unwrap();
            // Epochs that differ from the start need not be made so by gossip.
            let () =
                node.command(&format!("CLUSTER SET-CONFIG-EPOCH {}", first + 1)).await.unwrap();
        }
        cluster.introduce().await;
        for (node, replica) in primaries.iter().zip(replicas) {
            let id: String = node.command("CLUSTER MYID").await.unwrap();
            let () = replica.command(&format!("CLUSTER REPLICATE {id}")).await.unwrap();
        }
        eventually(PATIENCE, async || cluster.is_settled().await, |settled| *settled).await;
        cluster
    }

    /// Everybody meets everybody: gossip alone would take seconds.
    async fn introduce(&self) {
        for node in &self.nodes {
            for other in &self.nodes {
                let meet = format!("CLUSTER MEET 127.0.0.1 {}", other.port);
                let () = node.command(&meet).await.unwrap();
            }
        }
        let know_all = async || join_all(self.nodes.iter().map(members)).await;
        let all = |views: &Vec<RedisResult<Vec<Member>>>| {
            let is_known = |member: &Member| member.is_well;
            let is_whole = |view: &Vec<Member>| view.len() == 6 && view.iter().all(is_known);
            views.iter().all(|view| view.as_ref().is_ok_and(is_whole))
        };
        eventually(PATIENCE, know_all, all).await;
    }

    /// All are up, see the same cluster, and every replica is in step.
    async fn is_settled(&self) -> bool {
        let mut seen: Option<Vec<Member>> = None;
        for node in &self.nodes {
            let Ok(mut view) = members(node).await else { return false };
            view.iter_mut().for_each(|member| member.is_me = false);
            view.sort_by(|one, other| one.id.cmp(&other.id));
            let is_same = seen.get_or_insert_with(|| view.clone()) == &view;
            if !is_same || view.len() != 6 || !view.iter().all(|member| member.is_well) {
                return false;
            }
            let cluster: String = node.command("CLUSTER INFO").await.unwrap_or_default();
            let info: String = node.command("INFO replication").await.unwrap_or_default();
            let in_step = match field(&info, "role") {
                "master" => field(&info, "slave0").contains("state=online"),
                _ => field(&info, "master_link_status") == "up",
            };
            if field(&cluster, "cluster_state") != "ok" || !in_step {
                return false;
            }
        }
        true
    }

    /// Primaries and replicas, also those that are down.
    pub(crate) fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// Host and port of every node.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::address).collect()
    }

    /// Whoever runs and serves the slot. While nobody does, it waits for a replica's promotion.
    pub(crate) async fn primary_of(&self, slot: u16) -> &Redis {
        let position = async || self.server_of(slot).await.map(|(position, _)| position);
        let position = eventually(PATIENCE, position, Option::is_some).await;
        &self.nodes[position.expect("it was waited for")]
    }

    /// A replica of whoever serves the slot.
    pub(crate) async fn replica_of(&self, slot: u16) -> &Redis {
        let position = async || {
            let (_, primary) = self.server_of(slot).await?;
            let views = self.views_of_themselves().await;
            let copies = |node: &Option<Member>| {
                node.as_ref().is_some_and(|node| node.copies.as_ref() == Some(&primary.id))
            };
            views.iter().position(copies)
        };
        let position = eventually(PATIENCE, position, Option::is_some).await;
        &self.nodes[position.expect("it was waited for")]
    }

    /// Two may think so, for a moment: the newer one is right.
    async fn server_of(&self, slot: u16) -> Option<(usize, Member)> {
        let nodes = self.views_of_themselves().await.into_iter().enumerate();
        let serves =
            |node: &Member| node.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot));
        let serving = nodes.filter_map(|(position, node)| Some((position, node.filter(serves)?)));
        serving.max_by_key(|(_, node)| node.epoch)
    }

    async fn views_of_themselves(&self) -> Vec<Option<Member>> {
        let views = join_all(self.nodes.iter().map(members)).await;
        let me = |view: Vec<Member>| view.into_iter().find(|member| member.is_me);
        views.into_iter().map(|view| view.ok().and_then(me)).collect()
    }

    /// The replica takes over, and nothing is lost. All nodes must run. One replica can be elected
    /// twice only after ten seconds.
    pub(crate) async fn failover(&self, slot: u16) {
        let replica = self.replica_of(slot).await;
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            let _: RedisResult<()> = replica.command("CLUSTER FAILOVER").await;
            // An attempt lasts five seconds.
            let retry = Instant::now() + Duration::from_secs(6);
            while Instant::now() < retry {
                let is_primary = replica.info("role").await.is_ok_and(|role| role == "master");
                if is_primary && self.is_settled().await {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        panic!("the replica was not elected: {}", replica.log());
    }

    /// The shard of the slot forgets all, on its replica too.
    pub(crate) async fn empty_shard(&self, slot: u16) {
        let primary = self.primary_of(slot).await;
        assert!(primary.reaches_replicas("FLUSHALL").await, "its replica is not empty");
    }

    /// Its replica takes over after three seconds or so, without what it had not received.
    pub(crate) async fn kill_primary(&self, slot: u16) {
        self.primary_of(slot).await.kill().await;
    }
}

/// A node as one of the nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    id: String,
    is_me: bool,
    /// It was met, and is not suspected of being down.
    is_well: bool,
    /// The primary's id, if it is a replica.
    copies: Option<String>,
    epoch: u64,
    slots: Vec<(u16, u16)>,
}

async fn members(node: &Redis) -> RedisResult<Vec<Member>> {
    let nodes: String = node.command("CLUSTER NODES").await?;
    Ok(nodes.lines().map(member).collect())
}

/// ID ADDRESS FLAGS PRIMARY PING PONG EPOCH LINK SLOTS...
fn member(line: &str) -> Member {
    let words: Vec<&str> = line.split(' ').collect();
    let slots = words[8..].iter().filter_map(|slots| {
        let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    let is = |flag: &str| words[2].split(',').any(|own| own == flag);
    Member {
        id: words[0].to_owned(),
        is_me: is("myself"),
        is_well: !is("handshake") && !is("fail") && !is("fail?") && words[7] == "connected",
        copies: (words[3] != "-").then(|| words[3].to_owned()),
        epoch: words[6].parse().unwrap(),
        slots: slots.collect(),
    }
}

/// A primary and a replica, and three sentinels that watch them.
pub(crate) struct Sentinel {
    servers: [Redis; 2],
    sentinels: Vec<Redis>,
}

impl Sentinel {
    /// By what name the sentinels know the servers.
    pub(crate) const SERVICE: &str = "farebox";

    pub(crate) async fn start(setup: Setup) -> Sentinel {
        let primary = Redis::start(setup).await;
        let replica = primary.with_replica().await;
        let sentinels = join_all((0..3).map(|_| Sentinel::watch(&primary))).await;
        let sentinel = Sentinel { servers: [primary, replica], sentinels };
        eventually(PATIENCE, async || sentinel.is_settled().await, |settled| *settled).await;
        sentinel
    }

    async fn watch(primary: &Redis) -> Redis {
        let (home, service) = (tempfile::tempdir().unwrap(), Sentinel::SERVICE);
        let mut configuration = format!(
            "sentinel monitor {service} 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds {service} 1000\n\
             sentinel failover-timeout {service} 3000\n",
            primary.port
        );
        if let Some(password) = primary.setup.password {
            configuration += &format!("sentinel auth-pass {service} {password}\n");
        }
        let path = home.path().join("sentinel.conf");
        std::fs::write(&path, configuration).unwrap();
        let (path, home_path) = (path.display(), home.path().display());
        let arguments = words(&format!(
            "{path} --sentinel --bind 127.0.0.1 --dir {home_path}/data --logfile {home_path}/log"
        ));
        Redis::launch(home, Setup::default(), arguments).await
    }

    /// Every sentinel knows the others and the replica.
    async fn is_settled(&self) -> bool {
        for sentinel in &self.sentinels {
            let status: String = sentinel.command("INFO sentinel").await.unwrap_or_default();
            if !field(&status, "master0").ends_with(",slaves=1,sentinels=3") {
                return false;
            }
        }
        true
    }

    /// Host and port of every sentinel.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::address).collect()
    }

    /// Whom all sentinels name, if it runs. While nobody does, it waits for the promotion.
    pub(crate) async fn primary(&self) -> &Redis {
        let question = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {}", Sentinel::SERVICE);
        let position = async || {
            let mut named = Vec::new();
            for sentinel in &self.sentinels {
                let (_, port): (String, u16) = sentinel.command(&question).await.ok()?;
                named.push(port);
            }
            let is_named = |server: &Redis| named.iter().all(|port| *port == server.port);
            let position = self.servers.iter().position(is_named)?;
            let role = self.servers[position].info("role").await;
            role.is_ok_and(|role| role == "master").then_some(position)
        };
        let position = eventually(PATIENCE, position, Option::is_some).await;
        &self.servers[position.expect("it was waited for")]
    }

    /// The sentinels promote the replica after three seconds or so.
    pub(crate) async fn kill_primary(&self) {
        self.primary().await.kill().await;
    }
}

/// A wire to a server that can be cut when a request was carried out and before it is answered.
///
/// For one server without TLS: the clients of a cluster are told the nodes' own addresses.
pub(crate) struct Cut {
    url: String,
    next: Arc<Mutex<Option<String>>>,
}

impl Cut {
    pub(crate) async fn before(redis: &Redis) -> Cut {
        let server = redis.address();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let next: Arc<Mutex<Option<String>>> = Arc::default();
        let armed = next.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // To the client, a server that is down is a connection that is closed at once.
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                tokio::spawn(pass(client, server, armed.clone()));
            }
        });
        Cut { url: redis.base_url().replace(&redis.address(), &address), next }
    }

    /// As [`Redis::url`], through the wire.
    pub(crate) fn url(&self, ledger: &str) -> String {
        format!("{}/0?ledger={ledger}", self.url)
    }

    /// The next request with this word in it is carried out, and its connection ends instead of an
    /// answer. The word is as the client writes it: `EVALSHA`, or a key. Mind that an EVALSHA whose
    /// script is not loaded does nothing.
    pub(crate) fn arm(&self, word: &str) {
        *self.next.lock().unwrap() = Some(word.to_owned());
    }

    /// There was such a request since `arm`.
    pub(crate) fn is_done(&self) -> bool {
        self.next.lock().unwrap().is_none()
    }
}

async fn pass(client: TcpStream, server: TcpStream, armed: Arc<Mutex<Option<String>>>) {
    let (client_in, mut client_out) = client.into_split();
    let (mut server_in, server_out) = server.into_split();
    let (cut, is_cut) = watch::channel(false);
    let requests = tokio::spawn(pass_requests(client_in, server_out, armed, cut));
    let mut answer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = server_in.read(&mut answer).await {
        let is_lost = *is_cut.borrow();
        if !is_lost && client_out.write_all(&answer[..length]).await.is_err() {
            break;
        }
    }
    // After a cut, the server has answered all that it got, and closed.
    requests.abort();
}

/// Ends with the request that the wire is cut after; to the server, the client is gone then.
async fn pass_requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    armed: Arc<Mutex<Option<String>>>,
    cut: watch::Sender<bool>,
) {
    let mut request = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = client.read(&mut request).await {
        let request = &request[..length];
        let has =
            |word: &mut String| request.windows(word.len()).any(|part| part == word.as_bytes());
        let is_last = armed.lock().unwrap().take_if(has).is_some();
        cut.send_replace(is_last);
        if server.write_all(request).await.is_err() || is_last {
            break;
        }
    }
}
