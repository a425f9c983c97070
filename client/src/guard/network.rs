//! Networks, and which of them are not the public internet.
//!
//! After the special-purpose address registries of IANA, read strictly: what is deprecated or
//! embeds another address in a way of its own is refused, and of IPv6 only 2000::/3 is public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    pub(super) const fn single(address: IpAddr) -> Network {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Network { address, prefix }
    }

    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Network {
        Network { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Network {
        Network { address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), prefix }
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }

    /// Whether the bits behind the prefix are zero.
    fn is_exact(&self) -> bool {
        let trailing = match self.address {
            IpAddr::V4(address) => 32_u32.checked_sub(address.to_bits().trailing_zeros()),
            IpAddr::V6(address) => 128_u32.checked_sub(address.to_bits().trailing_zeros()),
        };
        trailing.is_some_and(|used| used <= u32::from(self.prefix))
    }
}

impl FromStr for Network {
    type Err = ();

    /// An address, or an address and a prefix, whose other bits must be zero.
    fn from_str(text: &str) -> Result<Network, ()> {
        let Some((address, prefix)) = text.split_once('/') else {
            return Ok(Network::single(text.parse().map_err(|_| ())?));
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| digits).ok_or(())?;
        let network = Network { address, prefix };
        let fits = prefix <= Network::single(address).prefix;
        (fits && network.is_exact()).then_some(network).ok_or(())
    }
}

const NOT_PUBLIC_V4: [(Network, &str); 18] = [
    (Network::v4(0, 0, 0, 0, 8), "unspecified"),
    (Network::v4(10, 0, 0, 0, 8), "private"),
    (Network::v4(100, 64, 0, 0, 10), "shared by a carrier's customers"),
    (Network::v4(127, 0, 0, 0, 8), "loopback"),
    // Azure's own services, at a public address inside of its virtual machines.
    (Network::v4(168, 63, 129, 16, 32), "metadata"),
    // Metadata of nearly every cloud: 169.254.169.254.
    (Network::v4(169, 254, 0, 0, 16), "link-local"),
    (Network::v4(172, 16, 0, 0, 12), "private"),
    (Network::v4(192, 0, 0, 0, 24), "reserved"),
    (Network::v4(192, 0, 2, 0, 24), "documentation"),
    (Network::v4(192, 88, 99, 0, 24), "6to4"),
    (Network::v4(192, 168, 0, 0, 16), "private"),
    (Network::v4(198, 18, 0, 0, 15), "benchmarking"),
    (Network::v4(198, 51, 100, 0, 24), "documentation"),
    (Network::v4(203, 0, 113, 0, 24), "documentation"),
    (Network::v4(233, 252, 0, 0, 24), "documentation"),
    (Network::v4(224, 0, 0, 0, 4), "multicast"),
    (Network::v4(255, 255, 255, 255, 32), "broadcast"),
    (Network::v4(240, 0, 0, 0, 4), "reserved"),
];

const NOT_PUBLIC_V6: [(Network, &str); 16] = [
    (Network::single(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), "unspecified"),
    (Network::single(IpAddr::V6(Ipv6Addr::LOCALHOST)), "loopback"),
    (Network::v6(0, 0, 0, 96), "IPv4-compatible"),
    (Network::v6(0x64, 0xff9b, 1, 48), "private NAT64"),
    (Network::v6(0x100, 0, 0, 64), "discarded"),
    (Network::v6(0x2001, 0, 0, 32), "Teredo"),
    (Network::v6(0x2001, 2, 0, 48), "benchmarking"),
    (Network::v6(0x2001, 0xdb8, 0, 32), "documentation"),
    (Network::v6(0x2001, 0, 0, 23), "reserved"),
    (Network::v6(0x2002, 0, 0, 16), "6to4"),
    (Network::v6(0x3fff, 0, 0, 20), "documentation"),
    (Network::v6(0x5f00, 0, 0, 16), "segment routing"),
    (Network::v6(0xfc00, 0, 0, 7), "private"),
    (Network::v6(0xfe80, 0, 0, 10), "link-local"),
    (Network::v6(0xfec0, 0, 0, 10), "site-local"),
    (Network::v6(0xff00, 0, 0, 8), "multicast"),
];

const GLOBAL_V6: Network = Network::v6(0x2000, 0, 0, 3);
/// Where networks without IPv4 reach it; the last 32 bits are the address.
const NAT64: Network = Network::v6(0x64, 0xff9b, 0, 96);

/// The address that a connection to `address` reaches: IPv4 that is written as IPv6 is IPv4.
pub(super) fn reached(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if NAT64.contains(address) {
        let [.., a, b, c, d] = v6.octets();
        return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    }
    address.to_canonical()
}

/// Which network that is not public an address belongs to.
pub(super) fn not_public(address: IpAddr) -> Option<&'static str> {
    let table: &[_] = if address.is_ipv4() { &NOT_PUBLIC_V4 } else { &NOT_PUBLIC_V6 };
    let known = table.iter().find(|(network, _)| network.contains(address));
    let unassigned = address.is_ipv6() && !GLOBAL_V6.contains(address);
    known.map(|(_, kind)| *kind).or(unassigned.then_some("reserved"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(address: &str) -> Option<&'static str> {
        not_public(reached(address.parse().unwrap()))
    }

    #[test]
    fn every_network_that_is_not_public_is_refused_from_its_first_address_to_its_last() {
        for (network, kind) in NOT_PUBLIC_V4.into_iter().chain(NOT_PUBLIC_V6) {
            assert!(network.is_exact(), "{network:?}");
            let (first, last) = match network.address {
                IpAddr::V4(first) => {
                    let behind = u32::MAX.checked_shr(network.prefix.into()).unwrap_or(0);
                    (IpAddr::from(first), IpAddr::from((first.to_bits() | behind).to_be_bytes()))
                }
                IpAddr::V6(first) => {
                    let behind = u128::MAX.checked_shr(network.prefix.into()).unwrap_or(0);
                    (IpAddr::from(first), IpAddr::from((first.to_bits() | behind).to_be_bytes()))
                }
            };
            assert!(network.contains(first) && network.contains(last));
            assert!(
                not_public(first).is_some() && not_public(last).is_some(),
                "{kind} {network:?}"
            );
        }
    }

    #[test]
    fn neighbours_of_refused_networks_are_public() {
        let public = "1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 \
            128.0.0.0 168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 \
            172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0 192.88.98.255 192.167.255.255 \
            192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 203.0.114.0 223.255.255.255 \
            8.8.8.8 2000:: 2001:200:: 2001:db7:ffff:: 2001:db9:: 2003:: 2606:4700::1111 \
            3ffe:: 3fff:1000:: ::ffff:8.8.8.8 64:ff9b::8.8.8.8";
        for address in public.split_whitespace() {
            assert_eq!(kind(address), None, "{address}");
        }
    }

    #[test]
    fn what_an_address_is_refused_as() {
        let refused = [
            ("169.254.169.254", "link-local"),
            ("::ffff:169.254.169.254", "link-local"),
            ("64:ff9b::10.0.0.1", "private"),
            ("64:ff9b:1::8.8.8.8", "private NAT64"),
            ("::8.8.8.8", "IPv4-compatible"),
            ("2002:808:808::", "6to4"),
            ("2001::808:808", "Teredo"),
            ("fd00:ec2::254", "private"),
            ("255.255.255.255", "broadcast"),
            ("4000::1", "reserved"),
            ("64:ff9b::1:0:0", "reserved"),
            ("::fffe:8.8.8.8", "reserved"),
        ];
        for (address, expected) in refused {
            assert_eq!(kind(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn a_network_is_written_with_its_first_address() {
        for text in
            ["10.0.0.0/8", "10.1.2.3", "10.1.2.3/32", "0.0.0.0/0", "fd00::/8", "::1", "::/0"]
        {
            assert!(text.parse::<Network>().is_ok(), "{text}");
        }
        let malformed = [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "::1/129",
            "10/8",
            "10.0.0.0/8/8",
            "fd00::1/8",
            "010.0.0.1",
            "10.0.0.0/-1",
            "127.1",
            "[::1]",
            "::1%1",
        ];
        for text in malformed {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
