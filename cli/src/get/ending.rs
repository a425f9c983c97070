//! How a call ends that is not answered: in words, and as an exit status.

use std::process::ExitCode;

use farebox_client::{
    Actor, ErrorCode, Event, Notice, PaymentError, PaymentErrorExt as _, Reason, Refusal,
};
use serde::Serialize;

use super::watch::Watch;
use crate::Fault;
use crate::settings::Home;
use crate::terminal::{self, tame};

/// The owner's rules forbid it; nothing was taken.
pub(crate) const REFUSED: u8 = 5;
const DENIED: u8 = 6;
/// The owner is asked, and has not answered.
pub(crate) const ASKED: u8 = 7;
const UNKNOWN: u8 = 8;
const DECLINED: u8 = 9;
const TROUBLE: u8 = 10;
const CHARGED_BEFORE: u8 = 11;
/// As `curl --fail` says it.
pub(super) const STATUS: u8 = 22;

pub(super) const HELP: &str = "The body goes to standard output as it came; what was paid is said on \
    standard error. What may be paid is written in `policy.toml`: `farebox policy example`. The \
    card is read from FAREBOX_CARD (number:mm:yy:cvc).\n\n\
    Exit status:\n  \
    0   served\n  \
    1   something else went wrong: no connection, no card, settings that cannot be read\n  \
    2   the command line is wrong\n  \
    5   the policy, or --max-price, forbids the payment; nothing was taken\n  \
    6   the owner was asked and said no; nothing was taken\n  \
    7   the owner was asked and has not answered yet; nothing was taken\n  \
    8   a payment was sent and its outcome is not known; run it again, it is not paid twice\n  \
    9   the card was refused; nothing was taken\n  \
    10  the provider, or Stripe, cannot take payments at the moment; nothing was taken\n  \
    11  the call of this --key was paid before and its answer is lost; nothing was taken again\n  \
    22  the server answered with a status of 400 or above";

/// What `--json` prints of a call that is not answered.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    error: String,
    exit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'a Refusal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<String>,
    events: Vec<Notice>,
}

/// Says why a call was not answered.
pub(super) fn failure(
    error: &reqwest_middleware::Error,
    home: &Home,
    has_policy: bool,
    origin: &str,
    watch: &Watch,
    json: bool,
) -> Result<ExitCode, Fault> {
    let payment = error.payment();
    let (status, words) = match payment {
        Some(payment) => (status(payment), chain(payment)),
        None => (1, format!("{origin} was not reached: {}", chain(error))),
    };
    let events = watch.notices();
    let advice = match payment {
        Some(PaymentError::Refused(Reason::Policy(_))) if !has_policy => {
            format!("; {}", start(home, origin, &events))
        }
        Some(payment) => advice(payment),
        None => String::new(),
    };
    // The advice may hold lines to copy; the error holds words of strangers.
    let error = format!("{}{advice}", tame(&words));
    if json {
        let refusal = match payment {
            Some(PaymentError::Refused(Reason::Policy(refusal))) => Some(refusal),
            _ => None,
        };
        let approval = match payment {
            Some(PaymentError::ApprovalPending { id, .. }) => Some(id.to_string()),
            _ => None,
        };
        terminal::print_json(&Failed { error, exit: status, refusal, approval, events })?;
    } else {
        anstream::eprintln!("farebox: {error}");
    }
    Ok(ExitCode::from(status))
}

/// What must be written where, before anything is paid: with the numbers of what was asked, for
/// an owner to change.
pub(super) fn start(home: &Home, origin: &str, events: &[Notice]) -> String {
    let offer = events.iter().find_map(|notice| match notice.event {
        Event::OfferSeen { price, min_top_up } => Some((price, min_top_up)),
        _ => None,
    });
    let path = home.policy_file();
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let lines = offer.map_or_else(String::new, |(price, top_up)| minimal(host, price, top_up));
    format!("there is no policy: write what may be paid to {}{lines}", path.display())
}

/// The smallest policy that allows one price and one top-up a day.
pub(super) fn minimal(
    host: &str,
    price: farebox_client::Money,
    top_up: farebox_client::Money,
) -> String {
    format!(
        ", such as:\n\n\
         allow = [\"{}\"]\n\
         per_request = \"{price}\"\n\
         per_top_up = \"{top_up}\"\n\
         per_day = \"{top_up}\"",
        tame(host)
    )
}

/// An error and its reasons.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words.push_str(&format!(": {text}"));
        }
        cause = error.source();
    }
    words
}

fn advice(error: &PaymentError) -> String {
    let advice = match error {
        PaymentError::NoCard | PaymentError::NoPaymentMethod { .. } => {
            "set FAREBOX_CARD to number:mm:yy:cvc, or name a PaymentMethod in settings.toml"
        }
        PaymentError::ApprovalPending { .. } => {
            "with the same --key, a later run goes on with the same question"
        }
        PaymentError::Unknown => {
            "run it again later, or `farebox credentials write-off` counts it as spent"
        }
        PaymentError::PaidButRefused => {
            "ask the provider; `farebox credentials write-off` counts it as spent"
        }
        PaymentError::Refused(Reason::PublishableKeyChanged) => {
            "on the command line that is `farebox credentials forget-key`"
        }
        _ => return String::new(),
    };
    format!("; {advice}")
}

fn status(error: &PaymentError) -> u8 {
    match error {
        PaymentError::Refused(_) => REFUSED,
        PaymentError::ApprovalDenied => DENIED,
        PaymentError::ApprovalPending { .. } => ASKED,
        PaymentError::AlreadyCharged => CHARGED_BEFORE,
        PaymentError::CardRejected(_) => DECLINED,
        PaymentError::Declined(
            ErrorCode::CardDeclined | ErrorCode::AuthenticationRequired | ErrorCode::AccountFrozen,
        ) => DECLINED,
        PaymentError::Budget(_) | PaymentError::State(_) => 1,
        error if error.is_unknown() => UNKNOWN,
        error if matches!(error.actor(), Actor::Provider | Actor::Nobody) => TROUBLE,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_its_status() {
        let endings = [
            (PaymentError::Refused(Reason::NoOffer), 5),
            (PaymentError::ApprovalDenied, 6),
            (PaymentError::Unknown, 8),
            (PaymentError::PaidButRefused, 8),
            (PaymentError::Declined(ErrorCode::CardDeclined), 9),
            (PaymentError::CardRejected("incorrect_number".to_owned()), 9),
            (PaymentError::Declined(ErrorCode::LedgerUnavailable), 10),
            (PaymentError::TokenizerUnavailable, 10),
            (PaymentError::CardTokenizationDisabled, 10),
            (PaymentError::AlreadyCharged, 11),
            (PaymentError::NoCard, 1),
        ];
        for (error, expected) in endings {
            assert_eq!(status(&error), expected, "{error}");
            assert!(HELP.contains(&format!("\n  {expected} ")), "{expected} is documented");
        }
    }
}
