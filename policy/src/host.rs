//! Which hosts an entry of the allow-list matches.
//!
//! ```
//! use farebox_policy::HostPattern;
//!
//! let entry = HostPattern::new("amazon.com");
//! assert!(entry.matches("aws.amazon.com", 443));
//! assert!(!entry.matches("notamazon.com", 443));
//! assert!(!HostPattern::new("amazon.com:8443").matches("amazon.com", 443));
//! ```

use std::fmt;
use std::net::IpAddr;

/// One entry of the allow-list: a host and its subdomains, on one port or on all.
///
/// An address (`127.0.0.1`, `[::1]`) matches itself only. Letters match in either case, and a
/// scheme before the host and a slash behind it are ignored. Names outside ASCII are written as
/// in a URL, in Punycode. An entry that is not a host matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// In lower case, without the root's dot; `None` when the entry is not a host.
    host: Option<String>,
    port: Option<u16>,
    written: String,
}

impl HostPattern {
    /// Reads `host` or `host:port`.
    pub fn new(written: &str) -> HostPattern {
        let entry = written.strip_prefix("https://").or_else(|| written.strip_prefix("http://"));
        let entry = entry.unwrap_or(written);
        let (host, port) = split_port(entry.strip_suffix('/').unwrap_or(entry));
        // A port that cannot be read must not become "every port".
        let port = port.map(str::parse).transpose();
        let (host, port) = match port {
            Ok(port) => (normal(host).filter(|host| is_host(host)), port),
            Err(_) => (None, None),
        };
        HostPattern { host, port, written: written.to_owned() }
    }

    /// Whether this entry covers `host` on `port`.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let (Some(entry), Some(host)) = (&self.host, normal(host)) else { return false };
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        let below = |host: &str| host.strip_suffix(entry.as_str()).is_some_and(ends_label);
        host == *entry || (!is_address(entry) && below(&host))
    }
}

impl fmt::Display for HostPattern {
    /// The entry as its owner wrote it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// What stands before a domain in the name of a subdomain: at least one label and a dot.
fn ends_label(prefix: &str) -> bool {
    prefix.len() > 1 && prefix.ends_with('.')
}

fn split_port(entry: &str) -> (&str, Option<&str>) {
    // The colons of `[::1]` are not a port's.
    let after = entry.rfind(']').map_or(0, |bracket| bracket + 1);
    match entry[after..].split_once(':') {
        Some((rest, port)) => (&entry[..after + rest.len()], Some(port)),
        None => (entry, None),
    }
}

fn normal(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host);
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    is_address(host) || host.split('.').all(label)
}

fn is_address(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // A last label of digits is how URLs tell an address from a name, `1.1` included.
    let digits = |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit());
    inner.parse::<IpAddr>().is_ok() || host.rsplit('.').next().is_some_and(digits)
}
