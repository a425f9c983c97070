//! A top-up that is set aside until its outcome is known.
//!
//! ```
//! use farebox_policy::{Hold, Request};
//! use farebox_protocol::usd;
//!
//! let request = Request::new("API.example.com", 443, usd!("0.01")).top_up(usd!("5"));
//! let hold = request.hold(1_700_000_000).expect("a top-up is held");
//! let json = serde_json::to_string(&hold)?;
//! assert_eq!(json, r#"{"at":1700000000,"host":"api.example.com","port":443,"amount":"5.00 usd"}"#);
//! assert_eq!(serde_json::from_str::<Hold>(&json)?, hold);
//! # Ok::<(), serde_json::Error>(())
//! ```

use farebox_protocol::Money;
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::time;

/// A top-up that is set aside in a [`Usage`](crate::Usage) until its outcome is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Unix seconds.
    pub(crate) at: i64,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) amount: Money,
}

impl Hold {
    pub(crate) fn new(host: &str, port: u16, amount: Money, now: i64) -> Hold {
        let host = Host::parse(host).map_or_else(|| host.to_owned(), |host| host.to_string());
        Hold { at: time::clamp(now), host, port, amount }
    }

    /// When it was set aside, in Unix seconds.
    pub fn at(&self) -> i64 {
        self.at
    }

    /// How much is set aside.
    pub fn amount(&self) -> Money {
        self.amount
    }
}
