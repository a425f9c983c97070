//! What happens during a call: kept for `--json`, and shown on standard error.

use std::sync::{Mutex, MutexGuard, PoisonError};

use farebox_client::{Event, Notice};
use reqwest::header::HeaderMap;
use reqwest::{Request, Response};

use crate::terminal::{self, DIM, Progress};

/// What an agent sends and is told about payments: credentials and keys are in it.
const SECRET: [&str; 5] =
    ["payment", "payment-response", "payment-required", "authorization", "proxy-authorization"];

/// The headers that may be shown.
pub(crate) fn shown(headers: &HeaderMap) -> impl Iterator<Item = (&str, String)> {
    let open = headers.iter().filter(|(name, _)| !SECRET.contains(&name.as_str()));
    open.map(|(name, value)| {
        (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    })
}

pub(crate) struct Watch {
    /// Questions are put on this terminal, which then shows nothing else.
    asks_here: bool,
    verbose: bool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    notices: Vec<Notice>,
    progress: Option<Progress>,
    /// What was last said to be waited for.
    waiting: Option<&'static str>,
}

impl Watch {
    pub(crate) fn new(asks_here: bool, verbose: bool) -> Watch {
        Watch { asks_here, verbose, seen: Mutex::default() }
    }

    pub(crate) fn hear(&self, notice: &Notice) {
        let words = words(notice);
        let mut seen = self.seen();
        seen.notices.push(notice.clone());
        if self.verbose {
            seen.progress = None; // its line is not written over
            anstream::eprintln!("{DIM}* {words}{DIM:#}");
        }
        match &notice.event {
            Event::Paying { .. } => seen.show(words),
            Event::Escalated { .. } if self.asks_here => seen.progress = None,
            Event::Escalated { .. } => {
                if !self.verbose {
                    anstream::eprintln!("{words}");
                }
                seen.show("waiting for the owner's answer".to_owned());
            }
            Event::ToppedUp { .. } | Event::Declined { .. } | Event::Denied { .. } => {
                seen.progress = None;
            }
            _ => {}
        }
    }

    /// Says, once, what is being waited for.
    pub(crate) fn wait(&self, reason: &'static str) {
        let mut seen = self.seen();
        seen.progress = None; // its line is not written over
        if seen.waiting != Some(reason) {
            anstream::eprintln!("{reason}; waiting");
            seen.waiting = Some(reason);
        }
        seen.show("waiting".to_owned());
    }

    /// Nothing is waited for.
    pub(crate) fn rest(&self) {
        self.seen().progress = None;
    }

    pub(crate) fn sent(&self, request: &Request) {
        if self.verbose {
            let line = format!("{} {}", request.method(), request.url().path());
            say('>', &line, request.headers());
        }
    }

    pub(crate) fn answered(&self, response: &Response) {
        if self.verbose {
            say('<', &response.status().to_string(), response.headers());
        }
    }

    pub(crate) fn notices(&self) -> Vec<Notice> {
        self.seen().notices.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn show(&mut self, doing: String) {
        self.progress = None; // it clears its line before another one takes it
        self.progress = Some(Progress::waiting(doing));
    }
}

fn say(side: char, line: &str, headers: &HeaderMap) {
    anstream::eprintln!("{DIM}{side} {}{DIM:#}", terminal::tame(line));
    for (name, value) in shown(headers) {
        anstream::eprintln!("{DIM}{side} {name}: {}{DIM:#}", terminal::tame(&value));
    }
}

/// An event in words. Those of strangers are in them, but no secrets.
fn words(notice: &Notice) -> String {
    let origin = &notice.origin;
    let words = match &notice.event {
        Event::OfferSeen { price, min_top_up } => {
            format!("{origin} asks {price}, and takes top-ups from {min_top_up}")
        }
        Event::Refused { reason } => format!("not paid: {reason}"),
        Event::Escalated { id, reason } => {
            format!("waiting for the owner's answer to approval {id}: {reason}")
        }
        Event::Approved { id } => format!("the owner approved {id}"),
        Event::Denied { id } => format!("the owner denied {id}"),
        Event::Paying { amount, resumed: false } => format!("paying {amount} to {origin} by card"),
        Event::Paying { amount, resumed: true } => {
            format!("asking {origin} what became of the payment of {amount}")
        }
        Event::ToppedUp { amount, .. } => format!("the card was charged {amount}"),
        Event::Declined { code } => format!("the payment was refused: {}", code.message()),
        Event::Unknown { amount } => format!("it is not known what became of {amount}"),
        Event::Spent { charged: Some(charged), remaining } => {
            format!("it cost {charged}; {remaining} left")
        }
        Event::Spent { charged: None, remaining } => format!("{remaining} left"),
        Event::Overcharged { taken, allowed } => {
            format!("{origin} took {taken} where {allowed} was allowed")
        }
        _ => "something else happened".to_owned(),
    };
    terminal::tame(&words)
}
