//! The amounts that an owner sets, for all hosts together or for one.
//!
//! ```
//! use farebox_policy::OriginLimits;
//! use farebox_protocol::usd;
//!
//! let own = OriginLimits::new("api.example.com").per_day(usd!("2")).payments_per_minute(1);
//! assert!(own.host().matches("eu.api.example.com", 443));
//! assert_eq!(own.limits().per_day, Some(usd!("2")));
//! ```

use farebox_protocol::Money;
use serde::{Deserialize, Serialize};

use crate::host::HostPattern;
use crate::rule::Rule;
use crate::window::Span;

/// The amounts of a [`Policy`](crate::Policy), or of one host in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The highest price of one request.
    pub per_request: Option<Money>,
    /// The largest charge of a card.
    pub per_top_up: Option<Money>,
    /// The most that leaves the card in one UTC day.
    pub per_day: Option<Money>,
    /// The most that leaves the card in one week, from Monday 00:00 UTC.
    pub per_week: Option<Money>,
    /// The most that leaves the card in one month of the calendar, UTC.
    pub per_month: Option<Money>,
    /// The most that leaves the card in any stretch of these lengths.
    pub rolling: Vec<Rolling>,
    /// The most that leaves the card, ever.
    pub lifetime: Option<Money>,
    /// How many payments are made from the card in any 60 seconds.
    pub payments_per_minute: Option<u32>,
}

/// The most that leaves the card in any stretch of time of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Rolling {
    /// The length.
    pub window: Span,
    /// The most.
    pub limit: Money,
}

impl Limits {
    /// The totals that are set, each with its rule.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (Rule, Money)> {
        let calendar = [
            (Rule::PerDay, self.per_day),
            (Rule::PerWeek, self.per_week),
            (Rule::PerMonth, self.per_month),
        ];
        let set = |(rule, limit): (Rule, Option<Money>)| limit.map(|limit| (rule, limit));
        let rolling =
            self.rolling.iter().map(|rolling| (Rule::Rolling(rolling.window), rolling.limit));
        let lifetime = set((Rule::Lifetime, self.lifetime));
        calendar.into_iter().filter_map(set).chain(rolling).chain(lifetime)
    }
}

/// The limits of one host and its subdomains together. They hold beside those of the policy: a
/// payment must be within both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginLimits {
    host: HostPattern,
    limits: Limits,
}

impl OriginLimits {
    /// No limits yet for `host` and its subdomains; see [`HostPattern`]. Where `host` is not a
    /// host, the limits hold for every host.
    pub fn new(host: &str) -> OriginLimits {
        OriginLimits::of(HostPattern::new(host), Limits::default())
    }

    pub(crate) fn of(host: HostPattern, limits: Limits) -> OriginLimits {
        OriginLimits { host, limits }
    }

    /// Whose limits these are.
    pub fn host(&self) -> &HostPattern {
        &self.host
    }

    /// The amounts.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// The setters that a policy and the limits of one host have in common.
macro_rules! setters {
    ($type:ident) => {
        impl $type {
            /// The highest price of one request, whether it is paid from credit or by card.
            #[must_use]
            pub fn per_request(mut self, limit: Money) -> $type {
                self.limits.per_request = Some(limit);
                self
            }

            /// The largest charge of a card.
            #[must_use]
            pub fn per_top_up(mut self, limit: Money) -> $type {
                self.limits.per_top_up = Some(limit);
                self
            }

            /// The most that leaves the card in one UTC day. A charge of unknown outcome counts.
            #[must_use]
            pub fn per_day(mut self, limit: Money) -> $type {
                self.limits.per_day = Some(limit);
                self
            }

            /// The most that leaves the card in one week, from Monday 00:00 UTC.
            #[must_use]
            pub fn per_week(mut self, limit: Money) -> $type {
                self.limits.per_week = Some(limit);
                self
            }

            /// The most that leaves the card in one month of the calendar, UTC.
            #[must_use]
            pub fn per_month(mut self, limit: Money) -> $type {
                self.limits.per_month = Some(limit);
                self
            }

            /// The most that leaves the card in any stretch of time as long as `window`. Several
            /// may be set; each holds.
            ///
            /// # Panics
            ///
            /// If `window` is not a whole number of seconds, at least one and at most
            /// [`Span::MAX`].
            #[must_use]
            pub fn rolling(mut self, window: std::time::Duration, limit: Money) -> $type {
                let window = Span::new(window);
                assert!(window.is_some(), "a rolling window is 1 to 31,622,400 whole seconds");
                self.limits.rolling.extend(window.map(|window| Rolling { window, limit }));
                self
            }

            /// The most that leaves the card, ever.
            #[must_use]
            pub fn lifetime(mut self, limit: Money) -> $type {
                self.limits.lifetime = Some(limit);
                self
            }

            /// How many payments are made from the card in any 60 seconds. A payment that was
            /// declined and released is counted as well.
            #[must_use]
            pub fn payments_per_minute(mut self, limit: u32) -> $type {
                self.limits.payments_per_minute = Some(limit);
                self
            }
        }
    };
}

setters!(OriginLimits);
pub(crate) use setters;
