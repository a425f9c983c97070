//! The rules that apply to a request, one after the other. A decision stops at the first that
//! refuses; an explanation goes through them all.

use std::ops::ControlFlow;

use farebox_protocol::{Micros, Money};

use crate::decide::Request;
use crate::host::{Host, HostPattern};
use crate::limits::Limits;
use crate::policy::{Policy, Standing};
use crate::refusal::{Escalation, Refusal};
use crate::rule::{Amount, Rule};
use crate::time::{self, DAY};
use crate::usage::{Meter, Usage, money};
use crate::window::{Span, Window};

/// One rule, and what it says about a request.
pub(crate) struct Check<'a> {
    pub(crate) rule: Rule,
    /// Whose own limit it is; `None` for those of all hosts together.
    pub(crate) origin: Option<&'a HostPattern>,
    pub(crate) limit: Option<Amount>,
    pub(crate) used: Option<Amount>,
    pub(crate) asked: Option<Amount>,
    pub(crate) left: Option<Amount>,
    pub(crate) resets_at: Option<i64>,
    pub(crate) verdict: Verdict,
}

pub(crate) enum Verdict {
    Pass,
    Escalate(Escalation),
    Refuse(Refusal),
}

type Visit<'v> = &'v mut dyn FnMut(Check<'_>) -> ControlFlow<()>;

/// Shows every rule that applies to `request` to `visit`, refusals before thresholds.
pub(crate) fn each_check(
    policy: &Policy,
    usage: &Usage,
    request: &Request<'_>,
    now: i64,
    visit: Visit<'_>,
) -> ControlFlow<()> {
    let standing = policy.standing(request.host, request.port);
    let rule = if matches!(standing, Standing::Blocked(_)) { Rule::Block } else { Rule::Host };
    let (verdict, host) = match standing {
        Standing::Allowed(host) => (Verdict::Pass, Some(host)),
        refused => (Verdict::Refuse(host_refusal(policy, request, &refused)), None),
    };
    visit(Check::plain(rule, None, verdict))?;
    // Where nothing may be paid, no limit applies.
    let Some(host) = host else { return ControlFlow::Continue(()) };
    let at = At { policy, usage, host: &host, port: request.port, now };
    at.price(request.price, visit)?;
    if let Some(amount) = request.top_up {
        at.top_up(amount, visit)?;
    }
    if request.approved {
        return ControlFlow::Continue(());
    }
    at.thresholds(request, visit)
}

fn host_refusal(policy: &Policy, request: &Request<'_>, standing: &Standing<'_>) -> Refusal {
    let (host, port) = (request.host.to_owned(), request.port);
    match standing {
        Standing::NotAHost => Refusal::NotAHost { host },
        Standing::Blocked(entry) => Refusal::Blocked { host, port, entry: entry.to_string() },
        Standing::NotListed | Standing::Allowed(_) => {
            let allowed = policy.allowed().iter().map(ToString::to_string).collect();
            Refusal::Host { host, port, allowed }
        }
    }
}

/// Whom a request pays, and when.
struct At<'a> {
    policy: &'a Policy,
    usage: &'a Usage,
    host: &'a Host<'a>,
    port: u16,
    now: i64,
}

impl<'a> At<'a> {
    fn limits(&self) -> impl Iterator<Item = (Option<&'a HostPattern>, &'a Limits)> {
        self.policy.limits_at(self.host, self.port)
    }

    fn price(&self, price: Money, visit: Visit<'_>) -> ControlFlow<()> {
        let rule = Rule::PerRequest;
        if price.micros() < Micros::ZERO {
            visit(Check::refuse(rule, price, Refusal::NotAnAmount { rule, asked: price }))?;
        }
        let limits = self.limits().filter_map(|(whose, own)| Some((whose, own.per_request?)));
        each_limit(rule, limits, price, visit)
    }

    fn top_up(&self, amount: Money, visit: Visit<'_>) -> ControlFlow<()> {
        let rule = Rule::PerTopUp;
        if amount.micros() <= Micros::ZERO {
            visit(Check::refuse(rule, amount, Refusal::NotAnAmount { rule, asked: amount }))?;
        }
        let limits = self.limits().filter_map(|(whose, own)| Some((whose, own.per_top_up?)));
        each_limit(rule, limits, amount, visit)?;
        self.clock(amount, visit)?;
        let mut none = true;
        for (whose, own) in self.limits() {
            for (rule, limit) in own.totals() {
                none = false;
                visit(self.total(rule, whose, limit, amount))?;
            }
        }
        if none {
            let refusal = Refusal::Unset { rule: Rule::Total, asked: amount };
            visit(Check::refuse(Rule::Total, amount, refusal))?;
        }
        for (whose, own) in self.limits() {
            if let Some(limit) = own.payments_per_minute {
                visit(self.payments(whose, limit, amount))?;
            }
        }
        self.countable(amount, visit)
    }

    fn clock(&self, asked: Money, visit: Visit<'_>) -> ControlFlow<()> {
        let now = time::clamp(self.now);
        match self.usage.latest() {
            Some(latest) if now < latest - DAY => {
                let refusal = Refusal::ClockBehind { asked, now, latest };
                visit(Check::refuse(Rule::Clock, asked, refusal))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    /// All that is ever held of a currency must be an amount of money, whatever the policy says.
    fn countable(&self, amount: Money, visit: Visit<'_>) -> ControlFlow<()> {
        let limit = Money::new(Micros::MAX, amount.currency());
        let check = self.total(Rule::Lifetime, None, limit, amount);
        match check.verdict {
            Verdict::Refuse(_) => visit(check),
            _ => ControlFlow::Continue(()),
        }
    }

    fn total(
        &self,
        rule: Rule,
        origin: Option<&'a HostPattern>,
        limit: Money,
        asked: Money,
    ) -> Check<'a> {
        let window = rule.window().unwrap_or(Window::Lifetime);
        let meter = Meter::Money(limit.currency());
        let used = self.usage.sum(meter, origin, window, self.now);
        let mut check = Check::money(rule, origin, limit, Some(used), asked);
        check.resets_at = window.resets_at(self.usage.clock(self.now));
        if let Verdict::Refuse(Refusal::Above { resets_at, .. }) = &mut check.verdict {
            if let Window::Rolling(span) = window {
                let room = limit.micros().get() - asked.micros().get();
                check.resets_at = self.usage.falls_to(room, meter, origin, span, self.now);
            }
            *resets_at = check.resets_at;
        }
        check
    }

    fn payments(&self, origin: Option<&'a HostPattern>, limit: u32, asked: Money) -> Check<'a> {
        let rule = Rule::PaymentsPerMinute;
        let span = Span::MINUTE;
        let window = Window::Rolling(span);
        let used = self.usage.sum(Meter::Payments, origin, window, self.now);
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        let mut check = Check::plain(rule, origin, Verdict::Pass);
        if used >= limit {
            let room = i64::from(limit) - 1;
            let resets_at = self.usage.falls_to(room, Meter::Payments, origin, span, self.now);
            check.resets_at = resets_at;
            let origin = origin.map(ToString::to_string);
            check.verdict = Verdict::Refuse(Refusal::TooMany { origin, limit, asked, resets_at });
        }
        check.limit = Some(Amount::Payments(limit));
        check.used = Some(Amount::Payments(used));
        check.asked = Some(Amount::Payments(1));
        check.left = Some(Amount::Payments(limit.saturating_sub(used)));
        check
    }

    fn thresholds(&self, request: &Request<'_>, visit: Visit<'_>) -> ControlFlow<()> {
        if let Some(threshold) = self.policy.ask_above {
            let amounts = [Some(request.price), request.top_up];
            for asked in amounts.into_iter().flatten() {
                let check = Check::money(Rule::AskAbove, None, threshold, None, asked);
                visit(check.ask(threshold, asked, None))?;
            }
        }
        if let (Some(threshold), Some(asked)) = (self.policy.ask_above_total, request.top_up) {
            let check = self.total(Rule::AskAboveTotal, None, threshold, asked);
            let meter = Meter::Money(threshold.currency());
            let window = Window::Rolling(Span::DAY);
            let total = self.usage.sum(meter, None, window, self.now);
            visit(check.ask(threshold, asked, Some(money(total, threshold.currency()))))?;
        }
        ControlFlow::Continue(())
    }
}

/// Compares `asked` with every limit of one rule, and refuses it where there is none.
fn each_limit<'a>(
    rule: Rule,
    limits: impl Iterator<Item = (Option<&'a HostPattern>, Money)>,
    asked: Money,
    visit: Visit<'_>,
) -> ControlFlow<()> {
    let mut none = true;
    for (origin, limit) in limits {
        none = false;
        visit(Check::money(rule, origin, limit, None, asked))?;
    }
    if none {
        visit(Check::refuse(rule, asked, Refusal::Unset { rule, asked }))?;
    }
    ControlFlow::Continue(())
}

impl<'a> Check<'a> {
    fn plain(rule: Rule, origin: Option<&'a HostPattern>, verdict: Verdict) -> Check<'a> {
        let (limit, used, asked, left, resets_at) = (None, None, None, None, None);
        Check { rule, origin, limit, used, asked, left, resets_at, verdict }
    }

    fn refuse(rule: Rule, asked: Money, refusal: Refusal) -> Check<'a> {
        let asked = Some(Amount::Money(asked));
        Check { asked, ..Check::plain(rule, None, Verdict::Refuse(refusal)) }
    }

    /// Compares `asked` with what `used` micros leave of `limit`.
    fn money(
        rule: Rule,
        origin: Option<&'a HostPattern>,
        limit: Money,
        used: Option<i64>,
        asked: Money,
    ) -> Check<'a> {
        let currency = limit.currency();
        let left = (limit.micros().get() - used.unwrap_or_default()).max(0);
        let left = money(left, currency);
        let named = || origin.map(ToString::to_string);
        let verdict = if currency != asked.currency() {
            Verdict::Refuse(Refusal::Currency { rule, origin: named(), limit, asked })
        } else if asked.micros() > left.micros() {
            let (origin, resets_at) = (named(), None);
            Verdict::Refuse(Refusal::Above { rule, origin, limit, asked, left, resets_at })
        } else {
            Verdict::Pass
        };
        Check {
            rule,
            origin,
            limit: Some(Amount::Money(limit)),
            used: used.map(|used| Amount::Money(money(used, currency))),
            asked: Some(Amount::Money(asked)),
            left: Some(Amount::Money(left)),
            resets_at: None,
            verdict,
        }
    }

    /// A threshold asks where a limit refuses. One of another currency refuses as well.
    fn ask(mut self, threshold: Money, asked: Money, total: Option<Money>) -> Check<'a> {
        if let Verdict::Refuse(Refusal::Above { rule, .. }) = self.verdict {
            self.verdict = Verdict::Escalate(Escalation { rule, threshold, asked, total });
        }
        self
    }
}
