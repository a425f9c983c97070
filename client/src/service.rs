//! Calls to services that are not providers: Stripe's tokenizer, an owner's approver.

use std::time::Duration;

use reqwest::{Client, Url, redirect};

use crate::origin::is_secure;

/// The address of a service: https, or http on loopback, without user, query and fragment.
pub(crate) fn base(text: &str) -> Option<Url> {
    let base = Url::parse(text).ok().filter(is_secure)?;
    let bare = base.username().is_empty() && base.password().is_none();
    (bare && base.query().is_none() && base.fragment().is_none()).then_some(base)
}

/// The address of `path` below `base`.
pub(crate) fn below(base: &Url, path: &str) -> String {
    format!("{}/{path}", base.as_str().trim_end_matches('/'))
}

/// A client of its own: the caller's may log bodies, follow redirects or share cookies.
pub(crate) fn client(base: &Url, timeout: Duration) -> reqwest::Result<Client> {
    let builder = Client::builder().redirect(redirect::Policy::none()).timeout(timeout);
    // Plain http is for loopback only, and a proxy is not on loopback.
    let builder = if base.scheme() == "http" { builder.no_proxy() } else { builder };
    builder.build()
}
