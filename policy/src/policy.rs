//! The limits that an owner sets.
//!
//! ```
//! use farebox_policy::Policy;
//! use farebox_protocol::usd;
//!
//! let policy = Policy::new().allow("api.example.com").per_request(usd!("0.05"));
//! assert!(policy.allows("eu.api.example.com", 443));
//! assert!(!policy.allows("example.com", 443));
//! assert!(!Policy::new().allows("api.example.com", 443)); // nothing was allowed yet
//! assert_eq!(policy.limits().per_day, None); // so no card is ever charged
//! ```

use farebox_protocol::Money;

use crate::host::HostPattern;

/// What an agent may pay. A new policy allows nothing.
///
/// | not set | consequence |
/// |---|---|
/// | [`allow`](Policy::allow), [`allow_any`](Policy::allow_any) | no host is paid |
/// | [`per_request`](Policy::per_request) | no request is paid for, not even from credit |
/// | [`per_top_up`](Policy::per_top_up), [`per_day`](Policy::per_day) | no card is charged |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    hosts: Hosts,
    limits: Limits,
}

/// The amounts of a [`Policy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The highest price of one request.
    pub per_request: Option<Money>,
    /// The largest charge of a card.
    pub per_top_up: Option<Money>,
    /// The most that leaves the card in one UTC day.
    pub per_day: Option<Money>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Listed(Vec<HostPattern>),
    Any,
}

impl Default for Hosts {
    fn default() -> Hosts {
        Hosts::Listed(Vec::new())
    }
}

impl Policy {
    /// A policy that allows nothing.
    pub fn new() -> Policy {
        Policy::default()
    }

    /// Also allows `host` and its subdomains; `host:port` allows that port only. See
    /// [`HostPattern`].
    #[must_use]
    pub fn allow(mut self, host: &str) -> Policy {
        if let Hosts::Listed(entries) = &mut self.hosts {
            entries.push(HostPattern::new(host));
        }
        self
    }

    /// Allows every host: any server that asks for money may get it, up to the limits.
    #[must_use]
    pub fn allow_any(mut self) -> Policy {
        self.hosts = Hosts::Any;
        self
    }

    /// The highest price of one request, whether it is paid from credit or by card.
    #[must_use]
    pub fn per_request(mut self, limit: Money) -> Policy {
        self.limits.per_request = Some(limit);
        self
    }

    /// The largest charge of a card.
    #[must_use]
    pub fn per_top_up(mut self, limit: Money) -> Policy {
        self.limits.per_top_up = Some(limit);
        self
    }

    /// The most that leaves the card in one UTC day, at all hosts together. A charge of unknown
    /// outcome counts.
    #[must_use]
    pub fn per_day(mut self, limit: Money) -> Policy {
        self.limits.per_day = Some(limit);
        self
    }

    /// Whether anything may be paid to `host` on `port`.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        match &self.hosts {
            Hosts::Any => true,
            Hosts::Listed(entries) => entries.iter().any(|entry| entry.matches(host, port)),
        }
    }

    /// The amounts.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The entries of the allow-list; none when every host is allowed.
    pub fn allowed(&self) -> &[HostPattern] {
        match &self.hosts {
            Hosts::Listed(entries) => entries,
            Hosts::Any => &[],
        }
    }
}
