//! Redirects: a request that carries a payment follows none.
//!
//! reqwest strips `authorization` from a request that is redirected to another host, but not
//! `payment`. Its redirect policy runs inside the poll of the request's future, where a
//! task-local says what kind of send is under way. Without that word nothing is followed: a send
//! that escaped to another task may carry a payment.

use std::sync::Arc;

use reqwest::redirect::Policy;

use crate::guard::Guard;

tokio::task_local! {
    static FOLLOWS: bool;
}

/// The policy of the inner client: `user`'s for unpaid sends, none for all others. A target that
/// `guard` refuses is an error: what `user` would do with it cannot be looked at.
pub(crate) fn policy(user: Arc<Policy>, guard: Option<Guard>) -> Policy {
    Policy::custom(move |attempt| {
        if !FOLLOWS.try_with(|follows| *follows).unwrap_or(false) {
            return attempt.stop();
        }
        match guard.as_ref().map(|guard| guard.check(attempt.url())) {
            Some(Err(blocked)) => attempt.error(blocked),
            _ => user.redirect(attempt),
        }
    })
}

/// Runs a send, with redirects only if it is `unpaid`.
pub(crate) async fn scope<F: Future>(unpaid: bool, send: F) -> F::Output {
    FOLLOWS.scope(unpaid, send).await
}
