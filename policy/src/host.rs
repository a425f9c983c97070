//! Which hosts an entry of a list matches.
//!
//! ```
//! use farebox_policy::HostPattern;
//!
//! let entry = HostPattern::new("amazon.com");
//! assert!(entry.matches("aws.amazon.com", 443));
//! assert!(!entry.matches("notamazon.com", 443));
//! assert!(!HostPattern::new("amazon.com:8443").matches("amazon.com", 443));
//! assert!(!HostPattern::new("amazon.com/path").is_host());
//! ```

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest name of a host, and of one label in it (RFC 1035, section 2.3.4).
const HOST_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// One entry of a list: a host and its subdomains, on one port or on all.
///
/// An address (`127.0.0.1`, `[::1]`) matches itself only. Letters match in either case, and a
/// scheme before the host and a slash behind it are ignored. Names outside ASCII are written as
/// in a URL, in Punycode. An entry that is not a host matches nothing; a file with such an entry
/// is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// `None` when the entry is not a host.
    host: Option<Host<'static>>,
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
        let host = Host::parse(host).filter(|_| port.is_none_or(is_port)).map(Host::into_owned);
        let port = port.and_then(|port| port.parse().ok());
        HostPattern { host, port, written: written.to_owned() }
    }

    /// Whether this entry could be read. One that could not matches nothing.
    pub fn is_host(&self) -> bool {
        self.host.is_some()
    }

    /// Whether this entry covers `host` on `port`.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        Host::parse(host).is_some_and(|host| self.covers(&host, port))
    }

    pub(crate) fn covers(&self, host: &Host<'_>, port: u16) -> bool {
        let on_port = self.port.is_none_or(|only| only == port);
        on_port && self.host.as_ref().is_some_and(|entry| entry.is_or_contains(host))
    }

    /// Whether this entry covers all that `other` covers.
    pub(crate) fn covers_all_of(&self, other: &HostPattern) -> bool {
        let on_port = self.port.is_none() || self.port == other.port;
        let (Some(outer), Some(inner)) = (&self.host, &other.host) else { return false };
        on_port && outer.is_or_contains(inner)
    }

    /// Whether one host covered by this entry may be covered by `other`.
    pub(crate) fn overlaps(&self, other: &HostPattern) -> bool {
        let (Some(one), Some(two)) = (&self.host, &other.host) else { return false };
        let on_port = self.port.is_none() || other.port.is_none() || self.port == other.port;
        on_port && (one.is_or_contains(two) || two.is_or_contains(one))
    }
}

impl fmt::Display for HostPattern {
    /// The entry as its owner wrote it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let entry = HostPattern::new(&text);
        if entry.is_host() {
            return Ok(entry);
        }
        Err(de::Error::custom(format_args!(
            "{text:?} is not a host: write it as in a URL, `example.com` or `example.com:8443`"
        )))
    }
}

/// A name in lower case without the root's dot, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host<'a> {
    Name(Cow<'a, str>),
    Address(IpAddr),
}

impl Host<'_> {
    /// Reads a host as it stands in a URL; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Host<'_>> {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        if let Ok(address) = inner.unwrap_or(text).parse::<IpAddr>() {
            // `::ffff:127.0.0.1` reaches the same machine as `127.0.0.1`.
            return Some(Host::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Some(Host::Address(address.into()));
        }
        let last = name.rsplit('.').next().unwrap_or(name);
        if name.len() > HOST_MAX || !name.split('.').all(is_label) || is_number(last) {
            return None;
        }
        let lower = name.bytes().all(|byte| !byte.is_ascii_uppercase());
        let name = if lower { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) };
        Some(Host::Name(name))
    }

    fn into_owned(self) -> Host<'static> {
        match self {
            Host::Name(name) => Host::Name(Cow::Owned(name.into_owned())),
            Host::Address(address) => Host::Address(address),
        }
    }

    fn is_or_contains(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Host::Name(entry), Host::Name(host)) => {
                let before = host.strip_suffix(entry.as_ref());
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            (Host::Address(entry), Host::Address(host)) => entry == host,
            _ => false,
        }
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(address) => address.fmt(f),
        }
    }
}

fn split_port(entry: &str) -> (&str, Option<&str>) {
    // The colons of `[::1]` are not a port's.
    let after = entry.rfind(']').map_or(0, |bracket| bracket + 1);
    match entry[after..].split_once(':') {
        Some((rest, port)) => (&entry[..after + rest.len()], Some(port)),
        None => (entry, None),
    }
}

/// A number without a sign, which is what `u16` alone would read.
fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// How URLs tell an address from a name: by a last label that is a number, `1.1` and `0x7f`
/// included (<https://url.spec.whatwg.org/#ends-in-a-number-checker>).
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
