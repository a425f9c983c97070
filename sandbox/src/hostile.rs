//! A battery of hostile providers, and a few honest ones, for any client of stripe402.
//!
//! Each scenario is a provider with an origin of its own, because clients keep credentials, keys
//! and unresolved payments per origin. What a scenario cost is read from the sandbox, where its
//! charges are, and not from what the client says. `docs/hostile.md` shows it with a client in
//! another language.
//!
//! # The reference policy
//!
//! What a scenario may cost is meant for a client that pays hosts named `127.0.0.1` only, at most
//! 0.05 usd for a request, 5 usd for a top-up and 10 usd in a day, and that is asked a few times,
//! one after the other and at once. Each scenario needs a client of its own: budgets are shared
//! otherwise.
//!
//! # What is not tried
//!
//! Whoever has a PaymentMethod can charge other sums than the client named. No client prevents
//! that, so these providers charge what a payment says: once, or at each message if they are of
//! version 1.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use farebox_sandbox::hostile::{Hostile, Kind, scenarios};
//!
//! let battery = Hostile::start("127.0.0.1:0".parse()?).await?;
//! let url = battery.scenario_url("fixed_price").expect("there is such a scenario");
//! assert_eq!(reqwest::get(url).await?.status(), 402);
//!
//! let verdict = battery.verdict("fixed_price").expect("there is such a scenario");
//! assert_eq!((verdict.requests, verdict.cost), (1, 0));
//! assert!(!verdict.within, "it means well, and nobody paid it");
//! assert!(scenarios().iter().filter(|scenario| scenario.kind == Kind::Attack).count() >= 27);
//! # Ok(())
//! # }
//! ```

mod controls;
mod floods;
mod offers;
mod payments;
mod redirects;
mod routes;
mod scenarios;
mod shop;
mod wire;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::builder::{StartError, StartErrorKind};
use crate::sandbox::Sandbox;
use scenarios::Serve;
pub use scenarios::{Kind, Scenario, scenarios};
use shop::Shop;
use wire::Ask;

/// A running battery, with a sandbox of its own. Dropping it stops the servers.
pub struct Hostile {
    battery: Arc<Battery>,
    url: String,
    _stop: DropGuard,
}

/// What came of one scenario.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// Name of the scenario.
    pub name: &'static str,
    /// Whether it means well.
    pub kind: Kind,
    /// Requests that it received, at all of its origins.
    pub requests: u64,
    /// Those that brought a payment.
    pub payments: u64,
    /// Requests that it served.
    pub served: u64,
    /// What left the card at Stripe, in US cents.
    pub cost: i64,
    /// What may have left it, in US cents.
    pub allowed: i64,
    /// What reached somebody who should not have got it.
    pub leaks: Vec<String>,
    /// Whether all is well: nothing leaked, and the cost is at most what is allowed. Of a
    /// [`Kind::Control`]: it served, and cost exactly that.
    pub within: bool,
}

struct Battery {
    sandbox: Arc<Sandbox>,
    stages: Vec<Stage>,
}

/// A scenario that is being played.
struct Stage {
    scenario: &'static Scenario,
    url: String,
    shop: Arc<Mutex<Shop>>,
}

impl Hostile {
    /// Starts everything on the current tokio runtime: a sandbox, every scenario at free ports of
    /// 127.0.0.1, and at `address` the list of them. Port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`StartErrorKind`] says what was wrong, as for a sandbox.
    pub async fn start(address: SocketAddr) -> Result<Hostile, StartError> {
        if !address.ip().is_loopback() {
            return Err(StartError::new(StartErrorKind::NotLoopback, None));
        }
        let sandbox = Sandbox::builder().foreign_key(shop::FOREIGN_KEY);
        let sandbox = Arc::new(sandbox.start((Ipv4Addr::LOCALHOST, 0).into()).await?);
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let mut stages = Vec::new();
        for scenario in scenarios() {
            let stage = Stage::open(scenario, &sandbox, &stop).await;
            stages.push(stage.map_err(unavailable)?);
        }
        let battery = Arc::new(Battery { sandbox, stages });
        let listener = TcpListener::bind(address).await.map_err(unavailable)?;
        let url = format!("http://{}", listener.local_addr().map_err(unavailable)?);
        let router = routes::routes(Arc::clone(&battery));
        tokio::spawn(async move {
            let served =
                axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "the list of scenarios stopped being served");
            }
        });
        Ok(Hostile { battery, url, _stop: guard })
    }

    /// Where the list is, without a slash at the end: `GET /scenarios` and `GET /verdicts`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stripe, for the client's tokenizer. Every charge of the battery is here.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.battery.sandbox
    }

    /// What to ask a scenario for. Paths below it are served too.
    #[must_use]
    pub fn scenario_url(&self, name: &str) -> Option<&str> {
        self.battery.stage(name).map(|stage| stage.url.as_str())
    }

    /// What came of a scenario so far.
    #[must_use]
    pub fn verdict(&self, name: &str) -> Option<Verdict> {
        self.battery.stage(name).map(|stage| self.battery.judge(stage))
    }

    /// What came of every scenario so far.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Verdict> {
        self.battery.verdicts()
    }
}

impl fmt::Debug for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hostile").field("url", &self.url).finish_non_exhaustive()
    }
}

fn unavailable(error: std::io::Error) -> StartError {
    StartError::new(StartErrorKind::AddressUnavailable, Some(error.into()))
}

impl Battery {
    fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.scenario.name == name)
    }

    fn verdicts(&self) -> Vec<Verdict> {
        self.stages.iter().map(|stage| self.judge(stage)).collect()
    }

    fn judge(&self, stage: &Stage) -> Verdict {
        let Scenario { name, kind, allowed, .. } = *stage.scenario;
        let charges = self.sandbox.charges();
        let of_it = charges.iter().filter(|charge| {
            charge.metadata.get(shop::SCENARIO).is_some_and(|scenario| scenario == name)
        });
        let cost = of_it.map(|charge| charge.amount).sum();
        let shop = lock(&stage.shop);
        let paid_well = match kind {
            Kind::Attack => cost <= allowed,
            Kind::Control => cost == allowed && shop.served > 0,
        };
        Verdict {
            name,
            kind,
            requests: shop.requests,
            payments: shop.payments,
            served: shop.served,
            cost,
            allowed,
            within: paid_well && shop.leaks.is_empty(),
            leaks: shop.leaks.clone(),
        }
    }
}

impl Stage {
    /// Opens both origins of a scenario: its own, and the one that it leads to.
    async fn open(
        scenario: &'static Scenario,
        sandbox: &Arc<Sandbox>,
        stop: &CancellationToken,
    ) -> std::io::Result<Stage> {
        let here = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let ports = (here.local_addr()?.port(), elsewhere.local_addr()?.port());
        let shop = Shop::new(scenario.name, Arc::clone(sandbox), ports);
        let shop = Arc::new(Mutex::new(shop));
        for (listener, serve) in [(here, scenario.serve), (elsewhere, redirects::elsewhere)] {
            let shop = Arc::clone(&shop);
            tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, shop, serve)));
        }
        let url = format!("http://{}:{}/resource", scenario.host, ports.0);
        Ok(Stage { scenario, url, shop })
    }
}

async fn accept(listener: TcpListener, shop: Arc<Mutex<Shop>>, serve: Serve) {
    loop {
        match listener.accept().await {
            // Every connection ends by itself.
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, Arc::clone(&shop), serve))),
            // Out of files for now.
            Err(_) => tokio::time::sleep(wire::PAUSE).await,
        }
    }
}

async fn answer(mut stream: TcpStream, shop: Arc<Mutex<Shop>>, serve: Serve) {
    let Some(ask) = Ask::read(&mut stream).await else { return };
    let reply = {
        let mut shop = lock(&shop);
        shop.note(&ask);
        serve(&mut shop, &ask)
    };
    reply.send(&mut stream).await;
}

/// A panic while the lock was held is a bug of the battery; the next scenario should still be
/// judged by itself.
fn lock(shop: &Mutex<Shop>) -> MutexGuard<'_, Shop> {
    shop.lock().unwrap_or_else(PoisonError::into_inner)
}
