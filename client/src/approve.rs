//! What a policy leaves to its owner: the question, and waiting for the answer.

use farebox_policy::Escalation;
use farebox_protocol::Money;
use tracing::info;

use crate::approval::{ApprovalId, Pace, Question, Waited, wait};
use crate::call::Ended;
use crate::error::{PaymentError, Reason};
use crate::event::Event;
use crate::middleware::PaymentMiddleware;
use crate::visit::{Failure, Visit};

/// A question's fingerprint does not cover its id.
const NO_ID: ApprovalId = ApprovalId::from_bytes([0; 16]);

impl PaymentMiddleware {
    /// Returns once the owner said yes to this price, and to this top-up if there is one. Nothing
    /// is held meanwhile: not the money, and not the origin's turn.
    pub(crate) async fn approve(
        &self,
        visit: &Visit<'_>,
        price: Money,
        top_up: Option<Money>,
        escalation: Escalation,
    ) -> Result<(), Failure> {
        let Some(approver) = &self.approver else {
            return Err(Reason::NobodyToAsk(escalation).into());
        };
        let question = self.question(visit, price, top_up, &escalation)?;
        let id = question.id;
        if self.is_approved(visit, id) {
            return Ok(());
        }
        info!(origin = visit.origin.key(), %id, %escalation, "the owner is asked");
        self.tell(visit, || Event::escalated(id, &escalation));
        self.remember_question(visit, &question, false).await?;
        let waited = wait(approver.as_ref(), &question, Pace::default(), self.approval_timeout);
        match waited.await {
            Ok(Waited::Approved) => {
                visit.call.set_approved(id);
                self.remember_question(visit, &question, true).await?;
                self.tell(visit, || Event::Approved { id });
                Ok(())
            }
            Ok(Waited::Denied) => {
                self.purse.state.keep(move |books| books.unask(&id)).await;
                self.tell(visit, || Event::Denied { id });
                Err(visit.call.end(Ended::ApprovalDenied).into())
            }
            Ok(Waited::TimedOut) => Err(PaymentError::ApprovalPending { id, source: None }.into()),
            Err(error) => Err(PaymentError::ApprovalPending { id, source: Some(error) }.into()),
        }
    }

    /// Whether the owner said yes to this price and top-up before.
    pub(crate) fn was_approved(
        &self,
        visit: &Visit<'_>,
        price: Money,
        top_up: Option<Money>,
    ) -> bool {
        let id = self.question_id(visit, price, top_up);
        id.is_some_and(|id| self.is_approved(visit, id))
    }

    /// What the question about this price and top-up is known by, if anybody can be asked.
    pub(crate) fn question_id(
        &self,
        visit: &Visit<'_>,
        price: Money,
        top_up: Option<Money>,
    ) -> Option<ApprovalId> {
        self.approver.as_ref()?;
        visit.call.question(visit.question(NO_ID, 0, price, top_up).fingerprint()).ok()
    }

    /// The question; of a named call the one that was asked before, if there was one.
    fn question(
        &self,
        visit: &Visit<'_>,
        price: Money,
        top_up: Option<Money>,
        escalation: &Escalation,
    ) -> Result<Question, PaymentError> {
        let about = visit.question(NO_ID, 0, price, top_up).fingerprint();
        let id = visit.call.question(about)?;
        let before = self.purse.state.with(|books| books.asked(&id).cloned());
        let question = visit.question(id, (self.clock)(), price, top_up);
        Ok(before.map_or_else(|| question.reason(escalation.to_string()), |asked| asked.question))
    }

    fn is_approved(&self, visit: &Visit<'_>, id: ApprovalId) -> bool {
        let before =
            |id| self.purse.state.with(|books| books.asked(id).is_some_and(|a| a.approved));
        visit.call.is_approved(id) || visit.call.name().is_some() && before(&id)
    }

    /// Writes a named call's question down, so that another process goes on with it.
    async fn remember_question(
        &self,
        visit: &Visit<'_>,
        question: &Question,
        approved: bool,
    ) -> Result<(), PaymentError> {
        if visit.call.name().is_none() {
            return Ok(());
        }
        let question = question.clone();
        let written = self.purse.state.update(move |books| books.ask(&question, approved));
        written.await.map_err(PaymentError::State)
    }
}
