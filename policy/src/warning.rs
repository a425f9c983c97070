//! What an owner surely did not mean.
//!
//! ```
//! use farebox_policy::{Policy, Warning};
//! use farebox_protocol::usd;
//!
//! let policy = Policy::new().allow("example.com").per_request(usd!("0.05")).per_day(usd!("5"));
//! assert_eq!(policy.warnings(), [Warning::NoTopUp]);
//! assert!(policy.per_top_up(usd!("5")).warnings().is_empty());
//! ```

use std::fmt;

use farebox_protocol::{Currency, Money};

use crate::host::HostPattern;
use crate::limits::Limits;
use crate::policy::{Hosts, Policy};
use crate::refusal::For;
use crate::rule::Rule;
use crate::window::Window;

/// What the owner of a policy surely did not mean. The policy holds all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// No host is allowed.
    NoHost,
    /// Every host is allowed.
    AnyHost,
    /// An allowed entry that is not a host, so it allows nothing.
    AllowsNothing(String),
    /// A blocked entry that is not a host, so it blocks every host.
    BlocksEverything(String),
    /// An allowed entry that a blocked one covers.
    AllowedAndBlocked {
        /// The allowed entry.
        allowed: String,
        /// The entry that blocks it.
        blocked: String,
    },
    /// Limits of a host that cannot be paid.
    OriginNotAllowed(String),
    /// Limits of an entry that is not a host, so they hold for every host.
    OriginNotAHost(String),
    /// No limit per request, so nothing is paid.
    NoPrice,
    /// No limit per top-up, so no card is charged.
    NoTopUp,
    /// No total, so no card is charged.
    NoTotal,
    /// No payment per minute, so no card is charged.
    NoPayments {
        /// Whose limit it is.
        origin: Option<String>,
    },
    /// Amounts of several currencies: whatever is paid, one of them refuses it.
    Currencies(Vec<Currency>),
    /// A limit that another one makes pointless, because that one refuses first.
    NeverReached {
        /// The limit without effect.
        rule: Rule,
        /// Whose it is.
        origin: Option<String>,
        /// Its amount.
        limit: Money,
        /// The one that refuses first.
        by: Rule,
        /// Whose that is.
        by_origin: Option<String>,
        /// Its amount.
        by_limit: Money,
    },
    /// A threshold above which a limit refuses before a human is asked.
    NeverAsked {
        /// The threshold.
        rule: Rule,
        /// Its amount.
        threshold: Money,
        /// The limit that refuses first.
        by: Rule,
        /// Its amount.
        limit: Money,
    },
    /// Top-ups are limited to less than the smallest charge that a card takes.
    BelowMinimum {
        /// The rule.
        rule: Rule,
        /// Whose limit it is.
        origin: Option<String>,
        /// The limit.
        limit: Money,
        /// The smallest charge.
        minimum: Money,
    },
}

impl Policy {
    /// What its owner surely did not mean.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        self.hosts_to_mind(&mut warnings);
        self.unset(&mut warnings);
        let currencies = self.currencies();
        if currencies.len() > 1 {
            warnings.push(Warning::Currencies(currencies));
            return warnings; // amounts that cannot be compared
        }
        pointless(None, &self.limits, &mut warnings);
        for own in &self.origins {
            let whose = Some(own.host());
            pointless(whose, own.limits(), &mut warnings);
            for (rule, limit) in amounts(own.limits()) {
                let mut general = amounts(&self.limits).into_iter();
                if let Some((_, by_limit)) =
                    general.find(|(by, by_limit)| *by == rule && below(*by_limit, limit))
                {
                    warnings.push(Warning::never((rule, whose, limit), (rule, None, by_limit)));
                }
            }
        }
        self.never_asked(&mut warnings);
        warnings
    }

    fn hosts_to_mind(&self, warnings: &mut Vec<Warning>) {
        match &self.hosts {
            Hosts::Any => warnings.push(Warning::AnyHost),
            Hosts::Listed(entries) if entries.is_empty() => warnings.push(Warning::NoHost),
            Hosts::Listed(_) => {}
        }
        for entry in self.blocked.iter().filter(|entry| !entry.is_host()) {
            warnings.push(Warning::BlocksEverything(entry.to_string()));
        }
        for entry in self.allowed() {
            if !entry.is_host() {
                warnings.push(Warning::AllowsNothing(entry.to_string()));
            } else if let Some(blocked) = self.blocks_all_of(entry) {
                let (allowed, blocked) = (entry.to_string(), blocked.to_string());
                warnings.push(Warning::AllowedAndBlocked { allowed, blocked });
            }
        }
        for own in &self.origins {
            let host = own.host();
            let mut entries = self.allowed().iter();
            let allowed = self.hosts == Hosts::Any || entries.any(|entry| entry.overlaps(host));
            if !host.is_host() {
                warnings.push(Warning::OriginNotAHost(host.to_string()));
            } else if !allowed || self.blocks_all_of(host).is_some() {
                warnings.push(Warning::OriginNotAllowed(host.to_string()));
            }
        }
    }

    fn blocks_all_of(&self, entry: &HostPattern) -> Option<&HostPattern> {
        self.blocked.iter().find(|blocked| blocked.covers_all_of(entry))
    }

    fn unset(&self, warnings: &mut Vec<Warning>) {
        let own = self.origins.iter().map(|own| (Some(own.host()), own.limits()));
        let all: Vec<_> = std::iter::once((None, &self.limits)).chain(own).collect();
        let unset = |set: &dyn Fn(&Limits) -> bool| !all.iter().any(|(_, limits)| set(limits));
        if unset(&|limits| limits.per_request.is_some()) {
            warnings.push(Warning::NoPrice);
        }
        if unset(&|limits| limits.per_top_up.is_some()) {
            warnings.push(Warning::NoTopUp);
        }
        if unset(&|limits| limits.totals().next().is_some()) {
            warnings.push(Warning::NoTotal);
        }
        for (whose, _) in all.iter().filter(|(_, limits)| limits.payments_per_minute == Some(0)) {
            warnings.push(Warning::NoPayments { origin: whose.map(ToString::to_string) });
        }
    }

    fn currencies(&self) -> Vec<Currency> {
        let own = self.origins.iter().flat_map(|own| amounts(own.limits()));
        let limits = amounts(&self.limits).into_iter().chain(own).map(|(_, limit)| limit);
        let all = limits.chain(self.ask_above).chain(self.ask_above_total);
        let mut currencies: Vec<_> = all.map(Money::currency).collect();
        currencies.sort_unstable();
        currencies.dedup();
        currencies
    }

    fn never_asked(&self, warnings: &mut Vec<Warning>) {
        let limits = &self.limits;
        if let (Some(threshold), Some(request), Some(top_up)) =
            (self.ask_above, limits.per_request, limits.per_top_up)
        {
            let (by, limit) = match below(request, top_up) {
                true => (Rule::PerTopUp, top_up),
                false => (Rule::PerRequest, request),
            };
            if !below(threshold, limit) {
                warnings.push(Warning::NeverAsked { rule: Rule::AskAbove, threshold, by, limit });
            }
        }
        let day = Window::Rolling(crate::window::Span::DAY);
        if let Some(threshold) = self.ask_above_total {
            let reach = |(by, limit): &(Rule, Money)| {
                by.window().is_some_and(|window| contains(window, day)) && !below(threshold, *limit)
            };
            if let Some((by, limit)) = limits.totals().find(reach) {
                let rule = Rule::AskAboveTotal;
                warnings.push(Warning::NeverAsked { rule, threshold, by, limit });
            }
        }
    }
}

/// Limits of one set that others of the same set make pointless.
fn pointless(whose: Option<&HostPattern>, limits: &Limits, warnings: &mut Vec<Warning>) {
    if let (Some(request), Some(top_up)) = (limits.per_request, limits.per_top_up)
        && below(top_up, request)
    {
        let of = (Rule::PerRequest, whose, request);
        warnings.push(Warning::never(of, (Rule::PerTopUp, whose, top_up)));
    }
    let totals: Vec<_> = limits.totals().collect();
    if let Some(top_up) = limits.per_top_up {
        if let Some(minimum) = top_up.currency().minimum_charge()
            && top_up.micros() < minimum
        {
            let minimum = Money::new(minimum, top_up.currency());
            let (rule, origin) = (Rule::PerTopUp, whose.map(ToString::to_string));
            warnings.push(Warning::BelowMinimum { rule, origin, limit: top_up, minimum });
        }
        for (by, by_limit) in totals.iter().filter(|(_, total)| below(*total, top_up)) {
            let of = (Rule::PerTopUp, whose, top_up);
            warnings.push(Warning::never(of, (*by, whose, *by_limit)));
        }
    }
    for (rule, limit) in &totals {
        let refuses_first = |(by, by_limit): &&(Rule, Money)| {
            let windows = rule.window().zip(by.window());
            below(*by_limit, *limit)
                && windows.is_some_and(|(inner, outer)| inner != outer && contains(outer, inner))
        };
        if let Some((by, by_limit)) = totals.iter().find(refuses_first) {
            let of = (*rule, whose, *limit);
            warnings.push(Warning::never(of, (*by, whose, *by_limit)));
        }
    }
}

/// Whether an owner expects what is paid within `inner` to be paid within one `outer` as well.
/// A window of the calendar may begin in the middle of the other one, which no owner counts on.
fn contains(outer: Window, inner: Window) -> bool {
    let length = |window| match window {
        Window::Day => 86_400,
        Window::Week => 7 * 86_400,
        Window::Month => 31 * 86_400,
        Window::Rolling(span) => span.seconds(),
        Window::Lifetime => i64::MAX,
    };
    length(outer) >= length(inner)
}

fn below(one: Money, other: Money) -> bool {
    one.micros() < other.micros()
}

fn amounts(limits: &Limits) -> Vec<(Rule, Money)> {
    let single = [(Rule::PerRequest, limits.per_request), (Rule::PerTopUp, limits.per_top_up)];
    let set = single.into_iter().filter_map(|(rule, limit)| limit.map(|limit| (rule, limit)));
    set.chain(limits.totals()).collect()
}

type Limit<'a> = (Rule, Option<&'a HostPattern>, Money);

impl Warning {
    fn never((rule, origin, limit): Limit<'_>, (by, by_origin, by_limit): Limit<'_>) -> Warning {
        let (origin, by_origin) =
            (origin.map(ToString::to_string), by_origin.map(ToString::to_string));
        Warning::NeverReached { rule, origin, limit, by, by_origin, by_limit }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::NoHost => f.write_str("no host is allowed, so nothing is paid"),
            Warning::AnyHost => f.write_str("every host is allowed: any server may ask for money"),
            Warning::AllowsNothing(entry) => {
                write!(f, "{entry:?} is allowed and is not a host, so it allows nothing")
            }
            Warning::BlocksEverything(entry) => {
                write!(f, "{entry:?} is blocked and is not a host, so every host is blocked")
            }
            Warning::AllowedAndBlocked { allowed, blocked } => {
                write!(f, "{allowed} is allowed, and {blocked} blocks all of it")
            }
            Warning::OriginNotAllowed(host) => {
                write!(f, "{host} has limits of its own and is not allowed")
            }
            Warning::OriginNotAHost(host) => {
                write!(f, "{host:?} has limits and is not a host, so they hold for every host")
            }
            Warning::NoPrice => f.write_str("per_request is not set, so nothing is paid"),
            Warning::NoTopUp => f.write_str("per_top_up is not set, so no card is charged"),
            Warning::NoTotal => f.write_str(
                "no total is set (per_day, per_week, per_month, rolling or lifetime), so no card \
                 is charged",
            ),
            Warning::NoPayments { origin } => {
                write!(f, "payments_per_minute{} is 0, so no card is charged", For(origin))
            }
            Warning::Currencies(currencies) => {
                let codes: Vec<_> = currencies.iter().map(|currency| currency.code()).collect();
                write!(f, "amounts are in {}: one of them refuses any payment", codes.join(", "))
            }
            Warning::NeverReached { rule, origin, limit, by, by_origin, by_limit } => write!(
                f,
                "the {rule}{} of {limit} is never reached: the {by}{} of {by_limit} refuses first",
                For(origin),
                For(by_origin)
            ),
            Warning::NeverAsked { rule, threshold, by, limit } => write!(
                f,
                "a human is hardly ever asked: the {by} of {limit} refuses before the {rule} of \
                 {threshold} asks"
            ),
            Warning::BelowMinimum { rule, origin, limit, minimum } => write!(
                f,
                "the {rule}{} of {limit} is below the smallest charge of a card, {minimum}",
                For(origin)
            ),
        }
    }
}
