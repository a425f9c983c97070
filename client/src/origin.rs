//! Where a request goes: the key under which credentials, prices and payments are kept.

use std::net::IpAddr;

use reqwest::Url;

/// Scheme, host and port of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    key: String,
    host: String,
    port: u16,
    secure: bool,
}

impl Origin {
    pub(crate) fn of(url: &Url) -> Option<Origin> {
        let host = url.host_str()?.to_owned();
        let port = url.port_or_known_default()?;
        let secure = is_secure(url);
        Some(Origin { key: url.origin().ascii_serialization(), host, port, secure })
    }

    /// Reads what [`Origin::key`] wrote.
    pub(crate) fn parse(key: &str) -> Option<Origin> {
        Origin::of(&Url::parse(key).ok()?)
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
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
        "http" => url.host_str().is_some_and(is_loopback),
        _ => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Method and path: what a price is remembered for.
pub(crate) fn route(method: &http::Method, url: &Url) -> String {
    format!("{method} {}", url.path())
}
