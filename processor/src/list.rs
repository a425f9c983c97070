//! Lists, page by page (docs.stripe.com/api/pagination): whole, or an error.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use stripe_client_core::{RequestBuilder, StripeMethod};

use crate::error::LookUpError;
use crate::lookup::{self, Failure, Found, LOOK_UP_BUDGET};
use crate::retry::{self, Deadline, Next};
use crate::stripe::Stripe;
use crate::transport::Attempt;

/// More than a payer can make in the time that is ever looked back; a list that never ends is
/// not one.
const PAGES_MAX: usize = 1_000;

/// An object in a list.
pub(crate) trait Listed: DeserializeOwned {
    /// By which the next page is asked for.
    fn id(&self) -> &str;
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    has_more: bool,
}

impl Stripe {
    /// Every object of a list, in Stripe's order: newest first.
    pub(crate) async fn list<T: Listed>(
        &self,
        request: RequestBuilder,
        what: &'static str,
    ) -> Result<Vec<T>, LookUpError> {
        self.pages(request, what, lookup::judge).await.map_err(|failure| failure.into_error(what))
    }

    /// The same of an endpoint that a stand-in may lack: `None` where it does.
    pub(crate) async fn list_if_known<T: Listed>(
        &self,
        request: RequestBuilder,
        what: &'static str,
    ) -> Result<Option<Vec<T>>, LookUpError> {
        match self.pages(request, what, lookup::judge_if_known).await {
            Ok(objects) => Ok(Some(objects)),
            Err(Failure::Refused(404, _)) => Ok(None),
            Err(failure) => Err(failure.into_error(what)),
        }
    }

    async fn pages<T: Listed>(
        &self,
        mut request: RequestBuilder,
        what: &'static str,
        judge: fn(&Attempt) -> Next<Found<Page<T>>>,
    ) -> Found<Vec<T>> {
        let first = request.query.clone().unwrap_or_default();
        let mut objects: Vec<T> = Vec::new();
        for _ in 0..PAGES_MAX {
            let ready = self.get(&request).map_err(|_| Failure::Unavailable)?;
            let deadline = Deadline::after(LOOK_UP_BUDGET);
            let page = retry::until(&ready, deadline, judge).await;
            let Page { data, has_more } = page.unwrap_or(Err(Failure::Unavailable))?;
            let last = data.last().map(|object| object.id().to_owned());
            objects.extend(data);
            match last {
                _ if !has_more => return Ok(objects),
                Some(last) => request.query = Some(after(&first, &last)),
                None => break,
            }
        }
        tracing::error!(what, "Stripe's list does not end");
        Err(Failure::Unavailable)
    }
}

/// The query for the page after the object `last`.
fn after(query: &str, last: &str) -> String {
    let query = query.to_owned();
    form_urlencoded::Serializer::new(query).append_pair("starting_after", last).finish()
}

/// A list of what was made at `created` (Unix seconds) or later, where no generated crate is
/// worth its weight.
pub(crate) fn created_since(path: &str, created: i64) -> RequestBuilder {
    let mut request = RequestBuilder::new(StripeMethod::Get, path);
    request.query = Some(format!("created[gte]={created}&limit=100"));
    request
}
