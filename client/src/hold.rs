//! A hold on its way: set aside in the budget, and not yet in the journal.
//!
//! The journal says that a hold is being made before the budget knows it, and that it is given
//! back before the budget returns it. So whoever has the origin's turn next finds what a crash
//! left between the two, and no hold is returned whose payment may have been sent.

use std::sync::Arc;

use farebox_policy::{Decision, Hold, Policy};
use tracing::warn;

use crate::books::{Books, Known, Unresolved};
use crate::budget::{Asked, Budget, HoldId};
use crate::error::{PaymentError, Reason, StateError};
use crate::origin::Origin;
use crate::state::{State, Turn};
use crate::step::Steps;

/// Where holds are kept and written down.
#[derive(Clone)]
pub(crate) struct Purse {
    pub(crate) state: Arc<State>,
    pub(crate) budget: Budget,
    pub(crate) steps: Steps,
}

/// A hold that goes back when it is dropped, unless the journal keeps it. It has the origin's
/// turn until then.
pub(crate) struct Held {
    id: HoldId,
    hold: Hold,
    origin: Origin,
    purse: Purse,
    /// What stood in the journal before.
    before: Option<Unresolved>,
    /// `None` once the journal keeps the hold.
    turn: Option<Turn>,
}

/// The answer to a request for a hold.
pub(crate) enum Answer {
    Held(Box<Held>),
    Not(Decision),
}

impl Purse {
    /// Sets the top-up of `asked` aside, in one step with the decision about it. Goes on to the
    /// end when its future is dropped, and then gives the hold back.
    pub(crate) async fn hold(
        &self,
        turn: Turn,
        origin: &Origin,
        policy: Arc<Policy>,
        asked: Asked,
        now: i64,
    ) -> Result<Answer, PaymentError> {
        let id = HoldId::random().map_err(|_| PaymentError::Randomness)?;
        let (purse, origin) = (self.clone(), origin.clone());
        let task = tokio::spawn(async move {
            let before = purse.announce(&origin, id).await?;
            purse.steps.at("announced");
            let reserved = purse.budget.reserve(id, &policy, asked, now).await;
            let (decision, hold) = match reserved {
                Ok(reserved) => reserved,
                Err(error) => {
                    purse.give_back(&origin, id, before, |_| ()).await;
                    return Err(PaymentError::Budget(error));
                }
            };
            match hold {
                Some(hold) => {
                    let turn = Some(turn);
                    Ok(Answer::Held(Box::new(Held { id, hold, origin, purse, before, turn })))
                }
                None => {
                    purse.forget(&origin, id).await;
                    Ok(Answer::Not(decision))
                }
            }
        });
        task.await.unwrap_or(Err(PaymentError::State(StateError::Interrupted)))
    }

    /// Writes down that a hold is being made. Whatever a crash left of an earlier one goes back.
    async fn announce(
        &self,
        origin: &Origin,
        id: HoldId,
    ) -> Result<Option<Unresolved>, PaymentError> {
        self.recover(origin).await?;
        let origin = origin.clone();
        let announced = self.state.update(move |books| {
            let known = books.entry(&origin)?;
            known.held = Some(id);
            Some(known.unresolved.clone())
        });
        let announced = announced.await.map_err(PaymentError::State)?;
        announced.ok_or(PaymentError::Refused(Reason::TooManyOrigins))
    }

    /// Returns what a crash, or a dropped call, left of a hold. The caller has the origin's turn.
    pub(crate) async fn recover(&self, origin: &Origin) -> Result<(), PaymentError> {
        let Some(id) = self.state.glimpse(origin, "").held else { return Ok(()) };
        self.budget.release(id).await.map_err(PaymentError::Budget)?;
        self.steps.at("recovered");
        self.forget(origin, id).await;
        Ok(())
    }

    /// The same at all origins that nobody is paying.
    pub(crate) async fn recover_all(&self) {
        let left = |books: &Books| {
            let held = books.all().filter(|(_, known)| known.held.is_some());
            held.filter_map(|(origin, _)| Origin::parse(origin)).collect::<Vec<_>>()
        };
        for origin in self.state.with(left) {
            let gate = self.state.gate(&origin);
            let Some(_turn) = self.state.try_turn(&origin, &gate) else { continue };
            if self.state.refresh().await.is_err() || self.recover(&origin).await.is_err() {
                warn!(origin = origin.key(), "what a crash left of a hold could not be returned");
            }
        }
    }

    /// Returns a hold under which nothing was sent, or nothing was taken, and keeps what was
    /// learnt of that. If it cannot be written down, the hold stays: its payment may stand in the
    /// journal.
    pub(crate) async fn give_back(
        &self,
        origin: &Origin,
        id: HoldId,
        before: Option<Unresolved>,
        learn: impl Fn(&mut Books) + Clone + Send + 'static,
    ) {
        let (at, learnt) = (origin.clone(), learn.clone());
        let written = self.state.update(move |books| {
            learnt(books);
            let Some(known) = books.known(&at) else { return };
            if known.unresolved.as_ref().is_some_and(|unresolved| unresolved.id == id) {
                known.unresolved = before;
            }
            known.held = Some(id);
        });
        if let Err(error) = written.await {
            warn!(origin = origin.key(), %error, "a hold was not returned");
            self.state.keep(learn).await;
            return;
        }
        self.steps.at("given back");
        if let Err(error) = self.budget.release(id).await {
            warn!(origin = origin.key(), %error, "a hold was not returned yet");
            return;
        }
        self.steps.at("released");
        self.forget(origin, id).await;
    }

    async fn forget(&self, origin: &Origin, id: HoldId) {
        let origin = origin.clone();
        let forget = move |books: &mut Books| {
            if let Some(known) = books.known(&origin).filter(|known| known.held == Some(id)) {
                known.held = None;
            }
        };
        self.state.keep(forget).await;
    }
}

impl Held {
    pub(crate) fn id(&self) -> HoldId {
        self.id
    }

    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Returns the hold: nothing will be sent under it.
    pub(crate) async fn give_back(mut self: Box<Self>) {
        let turn = self.turn.take();
        let (purse, origin, id) = (self.purse.clone(), self.origin.clone(), self.id);
        let before = self.before.take();
        // To the end, also if this future is dropped.
        let returned = tokio::spawn(async move {
            purse.give_back(&origin, id, before, |_| ()).await;
            drop(turn);
        });
        let _ = returned.await;
    }

    /// Writes the payment down: it may be sent when this returns, and the journal keeps the hold.
    pub(crate) async fn journal(
        mut self: Box<Self>,
        change: impl FnOnce(&mut Books, &Origin) + Send + 'static,
        unresolved: Unresolved,
    ) -> Result<Turn, PaymentError> {
        let (id, origin) = (self.id, self.origin.clone());
        let state = Arc::clone(&self.purse.state);
        // The task has the hold: it is either in the journal or on its way back.
        let task = tokio::spawn(async move {
            let written = state.update(move |books| {
                if let Some(known) = books.known(&origin) {
                    keep(known, id, unresolved);
                }
                change(books, &origin);
            });
            match written.await {
                Ok(()) => self.turn.take().ok_or(PaymentError::State(StateError::Interrupted)),
                Err(error) => {
                    self.give_back().await;
                    Err(PaymentError::State(error))
                }
            }
        });
        task.await.unwrap_or(Err(PaymentError::State(StateError::Interrupted)))
    }
}

fn keep(known: &mut Known, id: HoldId, unresolved: Unresolved) {
    known.unresolved = Some(unresolved);
    known.payments = known.payments.saturating_add(1);
    if known.held == Some(id) {
        known.held = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        // Without a runtime the journal still says it: the next turn of this origin returns it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (purse, origin, id) = (self.purse.clone(), self.origin.clone(), self.id);
        let before = self.before.take();
        runtime.spawn(async move {
            purse.give_back(&origin, id, before, |_| ()).await;
            drop(turn);
        });
    }
}
