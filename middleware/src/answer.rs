//! The headers of an answer to a paid request: the receipt, and who may cache and read it.

use farebox_protocol::{PaymentResponse, header};
use http::{HeaderMap, HeaderName, HeaderValue, header as names};

const EXPOSED: HeaderValue = HeaderValue::from_static("payment-required, payment-response");
const VARY: HeaderValue = HeaderValue::from_static("payment, authorization");

/// Adds the receipt, and keeps the answer out of shared caches: it was paid for by one payer.
pub(crate) fn write_receipt(headers: &mut HeaderMap, receipt: &PaymentResponse) {
    // The handler does not speak for us.
    headers.remove(header::PAYMENT_REQUIRED);
    if let Ok(mut value) = HeaderValue::try_from(receipt.encode()) {
        value.set_sensitive(true); // it holds the credential
        headers.insert(header::PAYMENT_RESPONSE, value);
    }
    // Caches in front of the provider obey these before `cache-control` (RFC 9213).
    headers.remove("cdn-cache-control");
    headers.remove("surrogate-control");
    make_private(headers);
    append_unless(headers, &names::VARY, VARY, "*");
    expose_headers(headers);
}

/// Lets a browser's script read our headers.
pub(crate) fn expose_headers(headers: &mut HeaderMap) {
    append_unless(headers, &names::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED, "*");
}

/// `public` and `s-maxage` go, `private` comes unless `no-store` stands (RFC 9111 section 5.2.2).
fn make_private(headers: &mut HeaderMap) {
    let mut kept: Vec<String> = Vec::new();
    for value in headers.get_all(names::CACHE_CONTROL) {
        // A value that is not text is no directive that anyone follows.
        let directives = value.to_str().unwrap_or_default().split(',').map(str::trim);
        kept.extend(directives.filter(|d| !is_shared(d) && !d.is_empty()).map(str::to_owned));
    }
    let is = |name: &str| kept.iter().any(|directive| directive.eq_ignore_ascii_case(name));
    if !is("no-store") && !is("private") {
        kept.push("private".to_owned());
    }
    if let Ok(value) = HeaderValue::try_from(kept.join(", ")) {
        headers.insert(names::CACHE_CONTROL, value);
    }
}

fn is_shared(directive: &str) -> bool {
    let name = directive.split('=').next().unwrap_or_default().trim();
    name.eq_ignore_ascii_case("public") || name.eq_ignore_ascii_case("s-maxage")
}

fn append_unless(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue, all: &str) {
    if !headers.get_all(name).iter().any(|value| value == all) {
        headers.append(name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache_control(before: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for value in before {
            headers.append(names::CACHE_CONTROL, HeaderValue::from_static(value));
        }
        make_private(&mut headers);
        assert_eq!(headers.get_all(names::CACHE_CONTROL).iter().count(), 1);
        headers[names::CACHE_CONTROL].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_paid_answer_never_reaches_a_shared_cache() {
        assert_eq!(cache_control(&[]), "private");
        assert_eq!(cache_control(&["public, max-age=60"]), "max-age=60, private");
        assert_eq!(cache_control(&["Public", "s-maxage=9, max-age=1"]), "max-age=1, private");
        assert_eq!(cache_control(&["no-store"]), "no-store");
        assert_eq!(cache_control(&["private, max-age=5"]), "private, max-age=5");
    }

    #[test]
    fn a_vary_on_everything_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(names::VARY, HeaderValue::from_static("*"));
        append_unless(&mut headers, &names::VARY, VARY, "*");
        assert_eq!(headers.get_all(names::VARY).iter().count(), 1);
    }
}
