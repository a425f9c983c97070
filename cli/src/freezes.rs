//! What a payer is frozen for: what each reason means, and how it ends.

use farebox_protocol::PayerId;

use crate::terminal::{self, BAD, Cell, DIM};

/// The reasons in words, for a terminal; there is at least one.
pub(crate) fn text(payer: PayerId, reasons: &[String]) -> String {
    let names: Vec<_> = reasons.iter().map(|reason| terminal::tame(reason)).collect();
    let rows: Vec<_> = names
        .iter()
        .map(|name| vec![Cell::left(""), Cell::left(name.as_str()), Cell::left(meaning(name))])
        .collect();
    format!(
        "{BAD}Frozen{BAD:#}: {}\n{}{DIM}  Lift one: farebox account unfreeze {payer} --reason \
         REASON{DIM:#}\n",
        names.join(", "),
        terminal::table(&rows)
    )
}

fn meaning(reason: &str) -> &'static str {
    let begins = |prefix| reason.starts_with(prefix);
    if begins("dp_") || begins("du_") {
        "a dispute: winning it lifts this; if it is lost, you decide"
    } else if begins("issfr_") {
        "the card's bank warns of fraud: refund the charge at Stripe, or lift this"
    } else if begins("unbooked_") {
        "a card paid, with no place here: refund it at Stripe and run `farebox reconcile`, or lift this"
    } else if begins("unpaid_") {
        "there is credit that no charge at Stripe paid: find out why, then lift this"
    } else if reason == "operator" {
        "an operator froze it: until you lift this"
    } else {
        "a reason of your own: until you lift this"
    }
}
