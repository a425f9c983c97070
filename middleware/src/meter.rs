//! What a metered request costs so far, and the body at whose end it is settled.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering, fence};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use farebox_ledger::book::Route;
use farebox_protocol::{Currency, Micros, Money};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

use crate::reservation::Reservation;

/// Counts what a metered request costs.
#[derive(Debug)]
pub(crate) struct Meter {
    currency: Currency,
    /// What was set aside.
    most: Micros,
    micros: AtomicI64,
    ended: AtomicBool,
    /// Whether a charge that did not count was logged.
    told: AtomicBool,
}

impl Meter {
    pub(crate) fn new(currency: Currency, most: Micros) -> Meter {
        let (micros, ended, told) =
            (AtomicI64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Meter { currency, most, micros, ended, told }
    }

    pub(crate) fn charge(&self, money: Money) {
        let more = money.micros();
        if money.currency() != self.currency || more < Micros::ZERO {
            return self.tell(money, "a charge in another currency, or below zero, counts nothing");
        }
        if self.ended.load(Ordering::SeqCst) {
            return self.tell(money, "a charge after the end of the request counts nothing");
        }
        let most = self.most.get();
        let add = |micros: i64| Some(micros.saturating_add(more.get()).min(most));
        let before = self.micros.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        if before.is_ok_and(|before| before.saturating_add(more.get()) > most) {
            self.tell(money, "a request is charged its maximum, and no more");
        }
    }

    fn tell(&self, money: Money, what: &str) {
        if !self.told.swap(true, Ordering::SeqCst) {
            tracing::warn!(%money, most = %Money::new(self.most, self.currency), "{what}");
        }
    }

    /// What was charged up to now.
    pub(crate) fn so_far(&self) -> Micros {
        // Between 0 and `most`.
        Micros::new(self.micros.load(Ordering::SeqCst)).unwrap_or(self.most)
    }

    /// What the request costs, in whole units. Later charges count for nothing.
    pub(crate) fn end(&self) -> Micros {
        self.ended.store(true, Ordering::SeqCst);
        self.so_far().units_ceil().micros().min(self.most)
    }
}

/// Whether nobody else can charge any more.
pub(crate) fn is_last(meter: &Arc<Meter>) -> bool {
    let is_last = Arc::strong_count(meter) == 1;
    fence(Ordering::Acquire); // what the others charged before they let go of it is seen
    is_last
}

/// A metered request whose head is on its way: dropping it settles what was charged up to then.
pub(crate) struct Metered {
    /// `None` once it is being settled.
    reservation: Option<Reservation>,
    meter: Arc<Meter>,
    route: Route,
}

impl Metered {
    /// From now on, what was charged is spent whenever the reservation is renewed.
    pub(crate) fn new(reservation: Reservation, meter: Arc<Meter>, route: Route) -> Metered {
        reservation.spends(&route, &meter);
        Metered { reservation: Some(reservation), meter, route }
    }

    fn settle(&mut self) -> Option<JoinHandle<()>> {
        let reservation = self.reservation.take()?;
        let (spent, route) = (self.meter.end(), self.route.clone());
        let shared = reservation.shared().clone();
        let settle = async move {
            if let Err(error) = reservation.settle(&route, spent).await {
                tracing::error!(%error, "a metered request could not be charged");
            }
        };
        Some(shared.tasks.spawn_on(settle, &shared.runtime))
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.settle();
    }
}

pin_project! {
    /// The body of an answer to a paid request. At a metered price, its end settles what was
    /// charged: when it was read to its end, or when it is dropped.
    pub struct PaidBody<R> {
        // Dropped first: what it charges while it is dropped counts.
        #[pin]
        inner: R,
        metered: Option<Metered>,
        settling: Option<JoinHandle<()>>,
    }
}

impl<R> PaidBody<R> {
    /// A body that costs nothing by itself.
    pub(crate) fn settled(inner: R) -> PaidBody<R> {
        PaidBody { inner, metered: None, settling: None }
    }

    pub(crate) fn metered(inner: R, metered: Metered) -> PaidBody<R> {
        PaidBody { inner, metered: Some(metered), settling: None }
    }
}

impl<R: Body<Data = Bytes>> Body for PaidBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let this = self.project();
        if this.settling.is_none() {
            let frame = ready!(this.inner.poll_frame(cx));
            if matches!(frame, Some(Ok(_))) {
                return Poll::Ready(frame);
            }
            let settling = this.metered.take().and_then(|mut metered| metered.settle());
            match frame {
                // A client that read the end finds its credit as it is after the request.
                None => *this.settling = settling,
                error => return Poll::Ready(error),
            }
        }
        if let Some(settling) = this.settling {
            // Its task has told what went wrong.
            let _ = ready!(Pin::new(settling).poll(cx));
            *this.settling = None;
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.settling.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<R> fmt::Debug for PaidBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaidBody").finish_non_exhaustive()
    }
}
