//! Where a request goes: the key under which credentials, prices and payments are kept.

use std::ops::Range;

use reqwest::Url;
use url::{Host, Position};

/// Scheme, host and port of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    key: String,
    /// Where the host stands in the key.
    host: Range<usize>,
    port: u16,
    secure: bool,
}

impl Origin {
    pub(crate) fn of(url: &Url) -> Option<Origin> {
        let (scheme, host) = (url.scheme(), url.host_str()?);
        let port = url.port_or_known_default()?;
        let start = scheme.len() + "://".len();
        let key = match &url[Position::BeforeUsername..Position::BeforeHost] {
            // An origin is how such a URL begins; this is on the way of every request.
            "" => url[..Position::BeforePath].to_owned(),
            _ => url.origin().ascii_serialization(),
        };
        Some(Origin { key, host: start..start + host.len(), port, secure: is_secure(url) })
    }

    /// Reads what [`Origin::key`] wrote.
    pub(crate) fn parse(key: &str) -> Option<Origin> {
        Origin::of(&Url::parse(key).ok()?)
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn host(&self) -> &str {
        &self.key[self.host.clone()]
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether a payment may travel there.
    pub(crate) fn secure(&self) -> bool {
        self.secure
    }
}

/// https, or http on loopback.
pub(crate) fn is_secure(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        },
        _ => false,
    }
}

/// Method and path: what a price is remembered for.
pub(crate) fn route(method: &http::Method, url: &Url) -> String {
    [method.as_str(), " ", url.path()].concat()
}

#[cfg(test)]
mod tests {
    use super::{Origin, Url};

    #[test]
    fn an_origin_is_what_the_url_standard_calls_one() {
        for text in [
            "https://api.example.com/joke?a=b#c",
            "https://API.example.com:443/",
            "http://127.0.0.1:4020/",
            "http://me:secret@localhost:80",
            "https://[::1]:8443/path",
            "https://b\u{fc}cher.example:444",
        ] {
            let url = Url::parse(text).unwrap();
            let origin = Origin::of(&url).unwrap();
            assert_eq!(origin.key(), url.origin().ascii_serialization());
            assert_eq!(Some(origin.host()), url.host_str());
            assert_eq!(Origin::parse(origin.key()), Some(origin));
        }
    }
}
