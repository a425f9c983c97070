use farebox_policy::{Decision, HostPattern, Policy, Refusal, Request, Rule, Usage, decide};
use farebox_protocol::usd;
use proptest::prelude::*;

use crate::support::refusal;

/// An entry, a host and its port, and whether the one covers the other.
const ENTRIES: &[(&str, &str, u16, bool)] = &[
    ("amazon.com", "amazon.com", 443, true),
    ("amazon.com", "aws.amazon.com", 443, true),
    ("amazon.com", "a.b.amazon.com", 8443, true),
    ("amazon.com", "AWS.Amazon.COM", 443, true),
    ("AMAZON.com", "aws.amazon.com", 443, true),
    ("amazon.com", "amazon.com.", 443, true),
    ("amazon.com", "notamazon.com", 443, false),
    ("amazon.com", ".amazon.com", 443, false),
    ("amazon.com", "amazon.com.evil.org", 443, false),
    ("amazon.com", "amazon.co", 443, false),
    ("amazon.com", "com", 443, false),
    ("amazon.com", "", 443, false),
    ("aws.amazon.com", "amazon.com", 443, false),
    ("amazon.com:8443", "amazon.com", 8443, true),
    ("amazon.com:8443", "aws.amazon.com", 8443, true),
    ("amazon.com:8443", "amazon.com", 443, false),
    ("amazon.com:port", "amazon.com", 443, false),
    ("amazon.com:", "amazon.com", 443, false),
    ("amazon.com:+443", "amazon.com", 443, false),
    ("amazon.com:99999", "amazon.com", 443, false),
    ("https://amazon.com/", "amazon.com", 443, true),
    ("https://amazon.com/path", "amazon.com", 443, false),
    ("*.amazon.com", "aws.amazon.com", 443, false),
    ("user@amazon.com", "amazon.com", 443, false),
    ("", "amazon.com", 443, false),
    (".", "amazon.com", 443, false),
    ("com..", "amazon.com", 443, false),
    ("127.0.0.1", "127.0.0.1", 80, true),
    ("127.0.0.1", "x.127.0.0.1", 80, false),
    ("0.1", "127.0.0.1", 80, false),
    ("1", "127.0.0.1", 80, false),
    ("127.0.0.1:80", "127.0.0.1", 81, false),
    ("[::1]", "[::1]", 80, true),
    ("[::1]:80", "[::1]", 80, true),
    ("[::1]:80", "[::1]", 81, false),
    ("localhost", "localhost", 80, true),
    // Lookalikes.
    ("amazon.com", "amazon.com..", 443, false),
    ("amazon.com", "a..amazon.com", 443, false),
    ("amazon.com", "evil.com#amazon.com", 443, false),
    ("amazon.com", "evil.com#.amazon.com", 443, false),
    ("amazon.com", "evil.com/.amazon.com", 443, false),
    ("amazon.com", "evil.com?.amazon.com", 443, false),
    ("amazon.com", "evil.com\\.amazon.com", 443, false),
    ("amazon.com", "user@amazon.com", 443, false),
    ("amazon.com", "user:x@.amazon.com", 443, false),
    ("amazon.com", "amazon.com:443", 443, false),
    ("amazon.com", " amazon.com", 443, false),
    ("amazon.com", "amazon.com\0.amazon.com", 443, false),
    ("amazon.com", "xn--amazn-mye.com", 443, false),
    ("amazon.com", "\u{430}mazon.com", 443, false),
    ("amazon.com", "\u{430}.amazon.com", 443, false),
    ("amazon.com", "aws\u{3002}amazon.com", 443, false),
    ("amazon.com", "aws.ama\u{17F}on.com", 443, false),
    ("xn--bcher-kva.example", "shop.XN--BCHER-KVA.example", 443, true),
    ("b\u{fc}cher.example", "xn--bcher-kva.example", 443, false),
    // Addresses in other words.
    ("::1", "::1", 80, false),
    ("[::1]", "[0:0:0:0:0:0:0:1]", 80, true),
    ("[::1]", "x.[::1]", 80, false),
    ("127.0.0.1", "127.0.0.1.", 80, true),
    ("127.0.0.1", "[::ffff:127.0.0.1]", 80, true),
    ("127.0.0.1", "127.1", 80, false),
    ("0x7f", "0x7f", 80, false),
];

#[test]
fn an_entry_matches_its_host_and_its_subdomains() {
    for (entry, host, port, matches) in ENTRIES {
        let found = HostPattern::new(entry).matches(host, *port);
        assert_eq!(found, *matches, "{entry} against {host}:{port}");
    }
}

#[test]
fn without_an_entry_no_host_is_allowed_unless_the_owner_says_any() {
    let limits = |policy: Policy| policy.per_request(usd!("1"));
    let request = Request::new("api.example.com", 443, usd!("0.01"));
    let refused = refusal(&limits(Policy::new()), &Usage::new(), &request, 0);
    assert_eq!(refused.rule(), Rule::Host);
    assert_eq!(refused.to_string(), "api.example.com:443 is not an allowed host (allowed: none)");
    let any = limits(Policy::new().allow("other.example").allow_any());
    assert_eq!(decide(&any, &Usage::new(), &request, 0).0, Decision::Allow);

    let one = limits(Policy::new().allow("other.example"));
    let refused = refusal(&one, &Usage::new(), &request, 0);
    assert!(matches!(refused, Refusal::Host { allowed, .. } if allowed == ["other.example"]));
}

#[test]
fn a_block_wins_over_whatever_is_allowed() {
    for policy in [Policy::new().allow_any(), Policy::new().allow("amazon.com")] {
        let policy = policy.per_request(usd!("1")).block("ads.amazon.com").block("amazon.com:8443");
        assert!(policy.allows("amazon.com", 443));
        for (host, port) in [
            ("ads.amazon.com", 443),
            ("x.ADS.amazon.com.", 443),
            ("amazon.com", 8443),
            ("aws.amazon.com", 8443),
        ] {
            assert!(!policy.allows(host, port), "{host}:{port}");
            let request = Request::new(host, port, usd!("0.01"));
            let refused = refusal(&policy, &Usage::new(), &request, 0);
            assert_eq!(refused.rule(), Rule::Block, "{refused}");
        }
    }
}

#[test]
fn entries_and_hosts_that_cannot_be_read_open_nothing() {
    let any = Policy::new().allow_any();
    for host in ["", ".", "x!.amazon.com", "evil.com#amazon.com", "1.2.3.4.5", "a b", "[x]"] {
        assert!(!any.allows(host, 443), "{host}");
    }
    assert!(!any.allows(&"a.".repeat(200), 443));
    assert!(!any.allows(&"a".repeat(64), 443));
    assert!(!any.block("https://amazon.com/path").allows("example.com", 443));
}

proptest! {
    #[test]
    fn a_host_matches_exactly_when_it_ends_in_the_labels_of_the_entry(
        entry in "[a-z]{1,3}(\\.[a-z]{1,3}){0,2}",
        host in "[a-z]{1,3}(\\.[a-z]{1,3}){0,3}",
        glue in "[a-z]{0,2}\\.?",
    ) {
        for host in [host.clone(), format!("{glue}{entry}"), format!("{host}.{entry}")] {
            let labels = |name: &str| name.split('.').map(str::to_owned).collect::<Vec<_>>();
            let ends = labels(&host).ends_with(&labels(&entry)) && !host.starts_with('.');
            prop_assert_eq!(HostPattern::new(&entry).matches(&host, 443), ends, "{}", host);
            prop_assert_eq!(HostPattern::new(&entry).matches(&host.to_uppercase(), 443), ends);
        }
    }
}
