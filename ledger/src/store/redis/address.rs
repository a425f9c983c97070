//! A ledger's URL: where its Redis is, and what the ledger is called there.

use crate::store::OpenError;

/// Where a ledger is kept in Redis.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) kind: Kind,
    pub(super) tls: bool,
    /// `user:password`, as the URL spells it.
    user: Option<String>,
    /// `host:port`, at least one.
    pub(super) hosts: Vec<String>,
    /// The number of the database; 0 on a cluster.
    pub(super) database: i64,
    pub(super) ledger: String,
    /// Whether card money waits for a replica; not named: if there is one.
    pub(super) wait: Option<bool>,
    /// Whether a Redis that forgets everything when it stops is accepted.
    pub(super) volatile: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Single,
    Cluster,
    /// The name of the service that sentinels watch.
    Sentinel(String),
}

const NAME: &str = "farebox";

impl Address {
    /// Reads `redis://`, `redis+cluster://`, `redis+sentinel://`, and the same with `rediss`.
    pub(super) fn parse(url: &str) -> Result<Address, OpenError> {
        read(url).ok_or_else(|| OpenError::Url(without_password(url)))
    }

    /// The URL of one host, as the client library reads it.
    pub(super) fn url(&self, host: &str) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        format!("{scheme}://{user}{host}/{}", self.database)
    }

    /// The place in words, without a password.
    pub(super) fn place(&self) -> String {
        self.hosts.join(",")
    }
}

/// A URL as it may stand in a log.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://..@{rest}"),
        _ => url.to_owned(),
    }
}

fn read(url: &str) -> Option<Address> {
    let (scheme, rest) = url.split_once("://")?;
    let (tls, kind) = match scheme.split_once('+') {
        Some((scheme, kind)) => (scheme, kind),
        None => (scheme, ""),
    };
    let tls = match tls {
        "redis" => false,
        "rediss" => true,
        _ => return None,
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user.to_owned()), rest),
        None => (None, rest),
    };
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = if kind == "sentinel" { 26_379 } else { 6_379 };
    let hosts: Vec<String> =
        hosts.split(',').map(|host| with_port(host, port)).collect::<Option<_>>()?;
    let (kind, database) = match (kind, path.split_once('/')) {
        ("", None) => (Kind::Single, path),
        ("cluster", None) => (Kind::Cluster, path),
        ("sentinel", None) if !path.is_empty() => (Kind::Sentinel(path.to_owned()), ""),
        ("sentinel", Some((service, database))) => (Kind::Sentinel(service.to_owned()), database),
        _ => return None,
    };
    let database = if database.is_empty() { 0 } else { database.parse().ok()? };
    if (kind == Kind::Single && hosts.len() != 1) || (kind == Kind::Cluster && database != 0) {
        return None;
    }
    let ledger = NAME.to_owned();
    let address = Address { kind, tls, user, hosts, database, ledger, wait: None, volatile: false };
    query.split('&').filter(|pair| !pair.is_empty()).try_fold(address, with_option)
}

fn with_option(mut address: Address, pair: &str) -> Option<Address> {
    match pair.split_once('=')? {
        ("ledger", name) if is_name(name) => name.clone_into(&mut address.ledger),
        ("wait", "0") => address.wait = Some(false),
        ("wait", "1") => address.wait = Some(true),
        ("volatile", "1") => address.volatile = true,
        _ => return None,
    }
    Some(address)
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

fn with_port(host: &str, port: u16) -> Option<String> {
    let name = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (name, rest) = match name {
        Some((name, rest)) => (name, rest),
        None => host.split_once(':').map_or((host, ""), |(name, _)| (name, &host[name.len()..])),
    };
    match (name.is_empty(), rest.strip_prefix(':')) {
        (true, _) => None,
        (false, None) if rest.is_empty() => Some(format!("{host}:{port}")),
        (false, Some(port)) => port.parse::<u16>().ok().map(|_| host.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_url_is_read() {
        let one = Address::parse("redis://me:secret@10.0.0.1/2?ledger=shop").unwrap();
        assert_eq!((one.kind.clone(), one.tls, one.database), (Kind::Single, false, 2));
        assert_eq!((one.ledger.as_str(), one.place()), ("shop", "10.0.0.1:6379".to_owned()));
        assert_eq!(one.url(&one.hosts[0]), "redis://me:secret@10.0.0.1:6379/2");
        let cluster = Address::parse("rediss+cluster://a:1,[::1]:2").unwrap();
        assert_eq!((cluster.kind, cluster.tls), (Kind::Cluster, true));
        assert_eq!(cluster.hosts, ["a:1", "[::1]:2"]);
        let sentinel = Address::parse("redis+sentinel://a,b:5/main/1?wait=1&volatile=1").unwrap();
        assert_eq!(sentinel.kind, Kind::Sentinel("main".to_owned()));
        assert_eq!(sentinel.hosts, ["a:26379", "b:5"]);
        assert_eq!((sentinel.wait, sentinel.volatile, sentinel.database), (Some(true), true, 1));
    }

    #[test]
    fn a_url_that_cannot_be_meant_is_refused_without_its_password() {
        for url in [
            "redis:",
            "redis://",
            "redis://a,b",
            "redis://a:x",
            "redis+cluster://a/1",
            "redis+sentinel://a",
            "redis+other://a",
            "redis://a?ledger={x}",
            "redis://a?wiat=1",
        ] {
            assert!(matches!(Address::parse(url), Err(OpenError::Url(_))), "{url}");
        }
        let refused = Address::parse("redis://me:secret@a?x=1").err().unwrap().to_string();
        assert!(!refused.contains("secret"), "{refused}");
    }
}
