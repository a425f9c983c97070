//! What an owner allows.
//!
//! ```
//! use farebox_policy::Policy;
//! use farebox_protocol::usd;
//!
//! let policy = Policy::new().allow("api.example.com").per_request(usd!("0.05"));
//! assert!(policy.allows("eu.api.example.com", 443));
//! assert!(!policy.allows("example.com", 443));
//! assert!(!Policy::new().allows("api.example.com", 443)); // nothing was allowed yet
//! assert!(!policy.block("eu.api.example.com").allows("eu.api.example.com", 443));
//! ```

use farebox_protocol::Money;

use crate::host::{Host, HostPattern};
use crate::limits::{Limits, OriginLimits, Rolling, setters};
use crate::window::Span;

/// What an agent may pay. A new policy allows nothing.
///
/// | not set | consequence |
/// |---|---|
/// | [`allow`](Policy::allow), [`allow_any`](Policy::allow_any) | no host is paid |
/// | [`per_request`](Policy::per_request) | no request is paid for, not even from credit |
/// | [`per_top_up`](Policy::per_top_up) | no card is charged |
/// | all of [`per_day`](Policy::per_day), [`per_week`](Policy::per_week), [`per_month`](Policy::per_month), [`rolling`](Policy::rolling), [`lifetime`](Policy::lifetime) | no card is charged |
///
/// A limit that is set for an [origin](Policy::origin) alone is set for that origin. All limits
/// that are set hold at once, and a refusal wins over a human's decision. A policy is also a file:
/// [`Policy::from_toml`], and `spec/policy.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub(crate) hosts: Hosts,
    pub(crate) blocked: Vec<HostPattern>,
    pub(crate) trusted: Vec<HostPattern>,
    pub(crate) limits: Limits,
    pub(crate) ask_above: Option<Money>,
    pub(crate) ask_above_total: Option<Money>,
    pub(crate) origins: Vec<OriginLimits>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hosts {
    Listed(Vec<HostPattern>),
    Any,
}

impl Default for Hosts {
    fn default() -> Hosts {
        Hosts::Listed(Vec::new())
    }
}

/// Whether a host may be paid, and why not.
pub(crate) enum Standing<'a> {
    Allowed(Host<'a>),
    NotAHost,
    NotListed,
    Blocked(&'a HostPattern),
}

setters!(Policy);

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

    /// Blocks `host` and its subdomains, whatever is allowed. An entry that is not a host blocks
    /// every host.
    #[must_use]
    pub fn block(mut self, host: &str) -> Policy {
        self.blocked.push(HostPattern::new(host));
        self
    }

    /// Believes `host` and its subdomains when they say that they did not charge the card: what was
    /// set aside for a refused payment goes back. From any other host that is only a word, which
    /// a dishonest one could give after each charge, so the money stays counted. It does not allow
    /// the host. An entry that is not a host trusts nobody.
    #[must_use]
    pub fn trust(mut self, host: &str) -> Policy {
        self.trusted.push(HostPattern::new(host));
        self
    }

    /// A human decides about a single payment above `threshold`: a top-up, or the price of a
    /// request, whether it is paid from credit or by card.
    #[must_use]
    pub fn ask_above(mut self, threshold: Money) -> Policy {
        self.ask_above = Some(threshold);
        self
    }

    /// A human decides about a top-up with which more than `threshold` would have left the card
    /// within 24 hours, at all hosts together: so a payment cannot be split into several below
    /// [`ask_above`](Policy::ask_above). The 24 hours are rolling, because a total that begins anew
    /// at midnight lets twice the threshold pass around midnight.
    #[must_use]
    pub fn ask_above_total(mut self, threshold: Money) -> Policy {
        self.ask_above_total = Some(threshold);
        self
    }

    /// Limits of one host, beside those of all hosts together.
    #[must_use]
    pub fn origin(mut self, limits: OriginLimits) -> Policy {
        self.origins.push(limits);
        self
    }

    /// Whether anything may be paid to `host` on `port`.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        matches!(self.standing(host, port), Standing::Allowed(_))
    }

    /// Whether `host` on `port` is believed when it says that it took nothing.
    pub fn trusts(&self, host: &str, port: u16) -> bool {
        self.trusted.iter().any(|entry| entry.matches(host, port))
    }

    /// The amounts for all hosts together.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The limits of single hosts.
    pub fn origins(&self) -> &[OriginLimits] {
        &self.origins
    }

    /// The highest price that a request to `host` on `port` may have: the lowest of the limits
    /// that apply there. `None` when no price may be paid: the host is not allowed, no limit is
    /// set, or they are in two currencies.
    pub fn max_price(&self, host: &str, port: u16) -> Option<Money> {
        let Standing::Allowed(host) = self.standing(host, port) else { return None };
        let mut limits = self.limits_at(&host, port).filter_map(|(_, limits)| limits.per_request);
        let first = limits.next()?;
        limits.try_fold(first, |lowest, limit| {
            let same = limit.currency() == lowest.currency();
            same.then(|| if limit.micros() < lowest.micros() { limit } else { lowest })
        })
    }

    /// The entries of the allow-list; none when every host is allowed.
    pub fn allowed(&self) -> &[HostPattern] {
        match &self.hosts {
            Hosts::Listed(entries) => entries,
            Hosts::Any => &[],
        }
    }

    /// The hosts that are believed when they say that they took nothing.
    pub fn trusted(&self) -> &[HostPattern] {
        &self.trusted
    }

    /// The entries of the block-list.
    pub fn blocked(&self) -> &[HostPattern] {
        &self.blocked
    }

    pub(crate) fn standing<'a>(&'a self, host: &'a str, port: u16) -> Standing<'a> {
        let Some(host) = Host::parse(host) else { return Standing::NotAHost };
        let blocks = |entry: &&HostPattern| !entry.is_host() || entry.covers(&host, port);
        if let Some(entry) = self.blocked.iter().find(blocks) {
            return Standing::Blocked(entry);
        }
        match &self.hosts {
            Hosts::Listed(entries) if !entries.iter().any(|entry| entry.covers(&host, port)) => {
                Standing::NotListed
            }
            _ => Standing::Allowed(host),
        }
    }

    /// The limits of all hosts together, then those of this one.
    pub(crate) fn limits_at<'a>(
        &'a self,
        host: &'a Host<'a>,
        port: u16,
    ) -> impl Iterator<Item = (Option<&'a HostPattern>, &'a Limits)> {
        let apply =
            move |own: &&OriginLimits| !own.host().is_host() || own.host().covers(host, port);
        let own = self.origins.iter().filter(apply).map(|own| (Some(own.host()), own.limits()));
        std::iter::once((None, &self.limits)).chain(own)
    }
}
