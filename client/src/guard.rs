//! A guard for agents that take addresses from pages: they reach the public internet only.
//!
//! A URL in a page, a redirect, or a name whose address changes between two look-ups (DNS
//! rebinding) may lead a program into the network that it runs in: to a database without a
//! password, or to a cloud's metadata with its keys. The guard looks at the address that is
//! connected to:
//!
//! - a host that is an address, in any of its spellings, before the request is sent;
//! - the same in every redirect, whatever the redirect policy says;
//! - the addresses that a name resolves to, at every connection: those that are refused are
//!   dropped, and the connection is made to one of the others, if there are any.
//!
//! A refused request ends with [`Reason::PrivateAddress`]. It was not sent.
//!
//! ```
//! use farebox_client::guard::{Blocked, Guard};
//! use farebox_client::{Agent, PaymentError, PaymentErrorExt as _, Policy, Reason};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let guard = Guard::public_only().allow("10.1.0.0/16")?;
//! let agent = Agent::new(Policy::new()).guard(guard);
//! let http = agent.client(reqwest::Client::builder())?.build();
//!
//! let error = http.get("http://169.254.169.254/latest/meta-data").send().await.unwrap_err();
//! let Some(PaymentError::Refused(Reason::PrivateAddress(blocked))) = error.payment() else {
//!     panic!("not refused: {error}");
//! };
//! assert_eq!(blocked.to_string(), "169.254.169.254 is not on the public internet (link-local)");
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not cover
//!
//! - Proxies resolve names themselves, so a guarded client uses none, not even those that the
//!   environment names.
//! - Addresses that the program gives to the client's builder (`resolve`, `unix_socket`) are the
//!   program's own words, and are not looked at.
//! - Middleware that is added to the client runs inside of the guard. It must not change the host
//!   of a request to an address that it read somewhere.
//! - A network may translate prefixes of its own to private IPv4; `64:ff9b::/96` is seen through.

mod network;

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use http::Extensions;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Request, Response, Url};
use reqwest_middleware::{Middleware, Next};
use tracing::info;

use crate::error::{PaymentError, Reason};
use network::Network;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Which addresses a client may connect to. The [module](self) says how it is enforced.
#[derive(Clone)]
pub struct Guard {
    networks: Vec<Network>,
    /// In lower case, without the root's dot.
    names: Vec<String>,
    resolver: Arc<dyn Resolve>,
}

impl Guard {
    /// Refuses every address that is not on the public internet: private, shared, loopback,
    /// link-local (metadata of clouds), multicast, documentation, reserved and unspecified ones,
    /// and IPv6 addresses that stand for such an IPv4 address.
    pub fn public_only() -> Guard {
        Guard { networks: Vec::new(), names: Vec::new(), resolver: Arc::new(System) }
    }

    /// An exception: an address (`10.1.2.3`, `::1`), a network (`10.0.0.0/8`), or the name of a
    /// host (`db.internal`), which may then resolve to any address. A name does not stand for its
    /// subdomains, nor for its address in a URL.
    ///
    /// # Errors
    ///
    /// [`ExceptionError`] when it is none of them, or a network whose address has bits behind its
    /// prefix.
    pub fn allow(mut self, exception: &str) -> Result<Guard, ExceptionError> {
        if let Ok(network) = exception.parse() {
            self.networks.push(network);
        } else if is_name(exception) {
            self.names.push(normal(exception));
        } else {
            return Err(ExceptionError(exception.to_owned()));
        }
        Ok(self)
    }

    /// Where the addresses of names come from; the system otherwise. What it answers is checked.
    #[must_use]
    pub fn resolver(mut self, resolver: impl Resolve + 'static) -> Guard {
        self.resolver = Arc::new(resolver);
        self
    }

    /// A builder whose connections pass this guard.
    pub(crate) fn protect(&self, builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        builder.no_proxy().dns_resolver(self.clone())
    }

    /// Whether the host of `url` is an address that is refused. Names are looked at when they
    /// are resolved.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Blocked> {
        let host = url.host_str().unwrap_or_default();
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match literal.unwrap_or(host).parse() {
            Ok(address) => self.permit(host, address),
            Err(_) => Ok(()),
        }
    }

    fn permit(&self, host: &str, address: IpAddr) -> Result<(), Blocked> {
        let reached = network::reached(address);
        let allowed = |network: &Network| network.contains(reached) || network.contains(address);
        match network::not_public(reached) {
            Some(kind) if !self.networks.iter().any(allowed) => {
                Err(Blocked { host: host.to_owned(), address, kind })
            }
            _ => Ok(()),
        }
    }

    /// The addresses of `host` that may be connected to. At least one, or else why not.
    fn permitted(&self, host: &str, found: Addrs) -> Result<Vec<SocketAddr>, BoxError> {
        if self.names.contains(&normal(host)) {
            return Ok(found.collect());
        }
        let mut blocked = None;
        let mut permitted = Vec::new();
        for address in found {
            match self.permit(host, address.ip()) {
                Ok(()) => permitted.push(address),
                Err(refused) => blocked = blocked.or(Some(refused)),
            }
        }
        match blocked {
            Some(blocked) if permitted.is_empty() => Err(blocked.into()),
            _ => Ok(permitted),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut guard = f.debug_struct("Guard");
        guard.field("networks", &self.networks).field("names", &self.names).finish_non_exhaustive()
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, host) = (self.clone(), name.as_str().to_owned());
        Box::pin(async move {
            let found = guard.resolver.resolve(name).await?;
            let permitted = guard.permitted(&host, found)?;
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

/// The system's resolver.
struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Looks at every send, paid or not, and gives a block the form that callers look for.
pub(crate) struct GuardMiddleware(pub(crate) Guard);

#[async_trait]
impl Middleware for GuardMiddleware {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.0.check(request.url()).map_err(refused)?;
        next.run(request, extensions).await.map_err(|error| match blocked(&error) {
            Some(blocked) => refused(blocked),
            None => error,
        })
    }
}

fn refused(blocked: Blocked) -> reqwest_middleware::Error {
    info!(%blocked, "not sent");
    reqwest_middleware::Error::middleware(PaymentError::Refused(Reason::PrivateAddress(blocked)))
}

/// What the guard refused, if that is why a request failed.
fn blocked(error: &reqwest_middleware::Error) -> Option<Blocked> {
    let mut cause: &(dyn StdError + 'static) = error;
    while let Some(source) = cause.source() {
        if let Some(blocked) = source.downcast_ref::<Blocked>() {
            return Some(blocked.clone());
        }
        cause = source;
    }
    None
}

/// A host that the guard refused. Nothing was sent to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    host: String,
    address: IpAddr,
    kind: &'static str,
}

impl Blocked {
    /// The host as the URL names it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address that was refused: the host's own, or the first one that its name has.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Blocked { host, address, kind } = self;
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if literal.unwrap_or(host).parse() == Ok(*address) {
            return write!(f, "{host} is not on the public internet ({kind})");
        }
        write!(f, "{host} is not on the public internet ({address}: {kind})")
    }
}

impl StdError for Blocked {}

/// An exception of a guard that is no address, network or name. It holds the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address, no network like 10.0.0.0/8, and no name of a host")]
pub struct ExceptionError(String);

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// A name in ASCII, as URLs hold it. A last label that starts with a digit is an address's.
fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.split('.').all(label) && !last.starts_with(|first: char| first.is_ascii_digit())
}
