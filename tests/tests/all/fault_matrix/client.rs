//! An honest client.

use std::time::Duration;

use farebox_protocol::Payment;

use super::shop::Shop;
use super::words::Heard;
use crate::support::{Answer, Bank};

/// Longer than any answer takes, by far.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client that believes what it is told, and pays no more than it must.
pub(super) struct Client {
    pub(super) path: &'static str,
    pub(super) payment: Payment,
    /// The charges that there were before.
    pub(super) before: usize,
    pub(super) served: usize,
    /// Requests whose answer never came.
    pub(super) unanswered: usize,
    pub(super) wrong: Vec<String>,
}

impl Client {
    pub(super) fn new(path: &'static str, payment: Payment, bank: &Bank) -> Client {
        let (before, wrong) = (bank.charges().len(), Vec::new());
        Client { path, payment, before, served: 0, unanswered: 0, wrong }
    }

    /// Sends the request once, and does what the answer says the next time.
    pub(super) async fn ask(&mut self, shop: &Shop, bank: &Bank) -> Heard {
        let answer = tokio::time::timeout(PATIENCE, shop.get(self.path, &self.payment)).await;
        let Ok(answer) = answer else {
            self.wrong.push(format!("no answer within {PATIENCE:?}"));
            return Heard::Other(0, None);
        };
        let heard = Heard::of(&answer);
        self.check_form(&answer, heard);
        match heard {
            Heard::Pending => self.payment.top_up_id = answer.refusal().top_up_id,
            // A definite no: nothing was taken, and nothing is going to be.
            Heard::Unavailable | Heard::Declined | Heard::HolderWanted | Heard::Invalid => {
                if bank.charges().len() > self.before || shop.has_open().await {
                    self.wrong.push(format!("{heard:?}, and the card was or will be charged"));
                }
                self.payment.top_up_id = None;
            }
            Heard::Served => self.served += 1,
            Heard::Nothing | Heard::Other(..) => {
                self.wrong.push(format!("was answered {heard:?}"));
            }
        }
        heard
    }

    /// Comes back until the answer is an end, but not for ever.
    pub(super) async fn insist(&mut self, times: usize, shop: &Shop, bank: &Bank) -> Heard {
        let mut heard = Heard::Nothing;
        for _ in 0..times {
            heard = self.ask(shop, bank).await;
            if !heard.is_no_end() {
                break;
            }
        }
        heard
    }

    fn check_form(&mut self, answer: &Answer, heard: Heard) {
        let mut check = |holds: bool, what: &str| {
            if !holds {
                self.wrong.push(format!("{heard:?} {what}"));
            }
        };
        if answer.status == 503 {
            check(answer.header("retry-after").is_some(), "without Retry-After");
            check(answer.offer().is_none(), "with an offer to pay again");
        }
        if heard == Heard::Pending {
            check(answer.refusal().top_up_id.is_some(), "without topUpId");
        }
        if heard != Heard::Served {
            check(answer.header("cache-control") == Some("no-store"), "may be cached");
        }
    }
}
