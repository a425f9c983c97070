//! One POST to an endpoint on loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use axum::http::{Request, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::webhooks::InvalidWebhook;

const PATIENCE: Duration = Duration::from_secs(10);

/// An address on this machine. Nothing is looked up, so no name can lead elsewhere.
#[derive(Clone)]
pub(crate) struct Target {
    url: String,
    host: String,
    path: String,
    addresses: Vec<SocketAddr>,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, InvalidWebhook> {
        let refused = || {
            InvalidWebhook(format!(
                "a webhook URL is on this machine, e.g. http://127.0.0.1:3000/webhooks, unlike \
                 `{url}`"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| refused())?;
        let authority = uri.authority().ok_or_else(refused)?.as_str();
        if uri.scheme_str() != Some("http") || authority.contains('@') {
            return Err(refused());
        }
        let host = uri.host().unwrap_or_default();
        let ips = loopback(host).ok_or_else(refused)?;
        let port = uri.port_u16().unwrap_or(80);
        Ok(Self {
            url: url.to_owned(),
            host: authority.to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            addresses: ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect(),
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// The addresses of a host that is this machine: `127.0.0.1`, `[::1]` or `localhost`.
pub(crate) fn loopback(host: &str) -> Option<Vec<IpAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let ip: IpAddr = bare.parse().ok()?;
    ip.is_loopback().then(|| vec![ip])
}

/// HTTP status of the answer, or 0 if there was none.
pub(crate) async fn post(target: &Target, signature: &str, body: String) -> u16 {
    let exchanged = tokio::time::timeout(PATIENCE, exchange(target, signature, body)).await;
    exchanged.ok().flatten().unwrap_or(0)
}

async fn exchange(target: &Target, signature: &str, body: String) -> Option<u16> {
    let request = Request::post(&target.path)
        .header(HOST, &target.host)
        .header(CONTENT_TYPE, "application/json; charset=utf-8")
        .header(USER_AGENT, "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
        .header("stripe-signature", signature)
        .body(Full::new(Bytes::from(body)))
        .ok()?;
    let stream = TcpStream::connect(target.addresses.as_slice()).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let answer = async move {
        let answer = sender.send_request(request).await;
        answer.ok().map(|answer| answer.status().as_u16())
    };
    // The connection ends once the answer, whose body nobody reads, is dropped.
    let (status, _closed) = tokio::join!(answer, connection);
    status
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn only_this_machine_is_a_target() {
        for url in [
            "http://127.0.0.1:3000/webhooks?a=b",
            "http://localhost/",
            "http://[::1]:80",
            "http://127.9.9.9:1/",
        ] {
            assert!(Target::parse(url).is_ok(), "{url}");
        }
        for url in [
            "https://127.0.0.1:3000/",
            "http://192.0.2.1/",
            "http://0.0.0.0:3000/",
            "http://example.com/",
            "http://localhost.example.com/",
            "http://user:word@127.0.0.1/",
            "http://127.0.0.1@example.com/",
            "127.0.0.1:3000",
            "/webhooks",
            "",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
