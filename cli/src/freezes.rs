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

fn meaning(reason: &str) -> String {
    let begins = |prefix| reason.starts_with(prefix);
    if begins("dp_") || begins("du_") {
        "a dispute: winning it lifts this; if it is lost, you decide".to_owned()
    } else if begins("issfr_") {
        "the card's bank warns of fraud: refund the charge at Stripe, or lift this".to_owned()
    } else if let Some(intent) = reason.strip_prefix("unbooked_") {
        format!(
            "a card paid {intent}, which has no place here: refund it at Stripe, then run `farebox reconcile`, or lift this"
        )
    } else if let Some(intent) = reason.strip_prefix("unpaid_") {
        format!(
            "there is credit for {intent}, and Stripe has no such charge: find out why, then lift this"
        )
    } else if reason == "operator" {
        "an operator froze it: until you lift this".to_owned()
    } else {
        "a reason of your own: until you lift this".to_owned()
    }
}
