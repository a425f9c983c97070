//! Where a request came from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Once;

use http::HeaderName;
use http::request::Parts;

use crate::admin::{Peer, connected};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where the address of a client is found, for the limits of [`Admission`](crate::Admission).
///
/// Set it with [`Builder::client_ip`](crate::Builder::client_ip). What a client can write itself
/// is never believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientIp {
    /// At the other end of the connection: axum's `ConnectInfo<SocketAddr>` (feature `axum`) or a
    /// [`Peer`] in the request's extensions. For a server that clients reach directly.
    #[default]
    Peer,
    /// In `x-forwarded-for`, at this place from the right: each proxy adds at the end the address
    /// it was called from. 1 behind one proxy, 2 behind two; 0 is [`ClientIp::Peer`].
    ///
    /// It is only true if every request comes through all of the proxies.
    Forwarded {
        /// How many proxies add to the header.
        hops: u8,
    },
}

impl ClientIp {
    /// The client that a request counts for; `None` if its address is not known.
    pub(crate) fn of(self, parts: &Parts) -> Option<IpAddr> {
        let address = match self {
            ClientIp::Peer | ClientIp::Forwarded { hops: 0 } => peer(parts),
            ClientIp::Forwarded { hops } => forwarded(parts, hops),
        };
        if address.is_none() {
            tell_once(self);
        }
        address.map(network)
    }
}

fn peer(parts: &Parts) -> Option<IpAddr> {
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0).or(connected(parts));
    peer.map(|peer| peer.ip())
}

/// Several headers are one list, in their order.
fn forwarded(parts: &Parts, hops: u8) -> Option<IpAddr> {
    let headers = parts.headers.get_all(X_FORWARDED_FOR).iter().rev();
    let mut entries = headers.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    let entry = entries.nth(usize::from(hops) - 1)?;
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    bare.parse().ok().or_else(with_port)
}

/// Whoever has one address of IPv6 has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(prefix).into()
        }
        address => address,
    }
}

fn tell_once(client_ip: ClientIp) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| match client_ip {
        ClientIp::Forwarded { hops } if hops > 0 => tracing::warn!(
            hops,
            "x-forwarded-for does not name as many addresses as Builder::client_ip says: \
             clients without one share one limit"
        ),
        _ => tracing::warn!(
            "requests bring no client address, so all clients share one limit: serve with \
             into_make_service_with_connect_info::<SocketAddr>(), or put a Peer into the \
             request's extensions, or set Builder::client_ip behind a proxy"
        ),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_headers(hops: u8, values: &[&str]) -> Option<String> {
        let mut request = http::Request::new(());
        for value in values {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().append(X_FORWARDED_FOR, value);
        }
        let parts = request.into_parts().0;
        ClientIp::Forwarded { hops }.of(&parts).map(|address| address.to_string())
    }

    #[test]
    fn a_client_is_where_the_outermost_proxy_saw_it_and_not_where_it_says() {
        let cases: &[(u8, &[&str], Option<&str>)] = &[
            (1, &["203.0.113.7"], Some("203.0.113.7")),
            (1, &["1.1.1.1, 203.0.113.7"], Some("203.0.113.7")),
            (2, &["1.1.1.1, 203.0.113.7, 10.0.0.1"], Some("203.0.113.7")),
            (2, &["1.1.1.1", "203.0.113.7", "10.0.0.1"], Some("203.0.113.7")),
            (2, &["1.1.1.1,203.0.113.7 ", "\t10.0.0.1"], Some("203.0.113.7")),
            (1, &["203.0.113.7:1234"], Some("203.0.113.7")),
            (1, &["::ffff:203.0.113.7"], Some("203.0.113.7")),
            (1, &["[::ffff:203.0.113.7]:80"], Some("203.0.113.7")),
            (1, &["2001:db8:1:2:3:4:5:6"], Some("2001:db8:1:2::")),
            (1, &["[2001:db8:1:2:9::1]:443"], Some("2001:db8:1:2::")),
            (1, &["[2001:db8:1:2:9::1]"], Some("2001:db8:1:2::")),
            // Too few, or nothing that is an address: never the neighbour instead.
            (1, &[], None),
            (2, &["203.0.113.7"], None),
            (200, &["1.1.1.1, 2.2.2.2"], None),
            (1, &["203.0.113.7,"], None),
            (1, &["203.0.113.7, unknown"], None),
            (1, &["203.0.113.7", ""], None),
            (1, &["1.1.1.1, 203.0.113.777"], None),
            (1, &["1.1.1.1, 203.0.113.7 8.8.8.8"], None),
            (1, &["1.1.1.1, \u{ff}"], None),
        ];
        for (hops, values, expected) in cases {
            assert_eq!(by_headers(*hops, values).as_deref(), *expected, "{hops} {values:?}");
        }
    }

    #[test]
    fn a_peer_is_believed_and_headers_beside_it_are_not() {
        let mut request = http::Request::new(());
        request.headers_mut().insert(X_FORWARDED_FOR, "1.1.1.1".parse().unwrap());
        request.extensions_mut().insert(Peer("[2001:db8::1]:5".parse().unwrap()));
        let parts = request.into_parts().0;
        let address = |client_ip: ClientIp| client_ip.of(&parts).map(|a| a.to_string());
        assert_eq!(address(ClientIp::Peer).as_deref(), Some("2001:db8::"));
        assert_eq!(address(ClientIp::Forwarded { hops: 0 }), address(ClientIp::Peer));
        let bare = http::Request::new(()).into_parts().0;
        assert_eq!(ClientIp::Peer.of(&bare), None);
    }
}
