//! Which addresses may be connected to: a URL that names the inside of a network, or comes to name it
//! later, must not turn the worker into a way in.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The host is an address that may not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("every address of the host is private or reserved")]
pub(super) struct Refused;

/// The address that a URL names without a name.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_matches(['[', ']']).parse().ok()
}

/// Whether it may be connected to. What only a machine or a link knows, cloud metadata among it, is
/// refused always; what a network of one's own has is allowed where an operator says so.
pub(super) fn is_allowed(address: IpAddr, allow_private: bool) -> bool {
    match address {
        IpAddr::V4(address) => is_allowed_v4(address, allow_private),
        IpAddr::V6(address) => is_allowed_v6(address, allow_private),
    }
}

fn is_allowed_v4(address: Ipv4Addr, allow_private: bool) -> bool {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        // This network, link-local with the metadata services, protocol assignments, documentation,
        // 6to4 relays, multicast, reserved and broadcast.
        (0 | 224..=255, ..)
        | (169, 254, _)
        | (192, 0, 0 | 2)
        | (192, 88, 99)
        | (198, 51, 100)
        | (203, 0, 113) => false,
        // Private use, shared address space, loopback, benchmarking.
        (10 | 127, ..)
        | (100, 64..=127, _)
        | (172, 16..=31, _)
        | (192, 168, _)
        | (198, 18 | 19, _) => allow_private,
        _ => true,
    }
}

fn is_allowed_v6(address: Ipv6Addr, allow_private: bool) -> bool {
    if let Some(inner) = embedded(address) {
        return is_allowed_v4(inner, allow_private);
    }
    // Amazon's metadata service is in a private range.
    if address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) {
        return false;
    }
    if address.is_loopback() {
        return allow_private;
    }
    match address.segments() {
        [0xfc00..=0xfdff, ..] => allow_private,
        // Documentation and benchmarking; local translation.
        [0x2001, 0x0db8 | 0x0002, ..] | [0x3fff, 0x0000..=0x0fff, ..] => false,
        // Global unicast; everything else is link-local, site-local, multicast or unassigned.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, translated, 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}

/// Resolves names and leaves out what may not be connected to. It runs for every new connection, so a
/// name that changes its mind is no way around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolver {
    pub(super) allow_private: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found
                .filter(|address| is_allowed(address.ip(), allow_private))
                .collect();
            if allowed.is_empty() {
                let refused: Box<dyn Error + Send + Sync> = Box::new(Refused);
                return Err(refused);
            }
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> (bool, bool) {
        let address = text.parse().unwrap();
        (is_allowed(address, false), is_allowed(address, true))
    }

    #[test]
    fn the_world_is_allowed_the_inside_on_demand_and_a_link_never() {
        for address in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2600:1f18::1",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(allowed(address), (true, true), "{address}");
        }
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "::1",
            "fd12::1",
            "fc00::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:0a00:0001::1",
            "::127.0.0.1",
        ] {
            assert_eq!(allowed(address), (false, true), "{address}");
        }
        for address in [
            "0.0.0.0",
            "169.254.169.254",
            "192.0.0.1",
            "192.0.2.1",
            "203.0.113.7",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "2001:db8::1",
            "100::1",
            "64:ff9b:1::1",
        ] {
            assert_eq!(allowed(address), (false, false), "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_is_worth_its_addresses() {
        let resolve = async |allow_private| {
            let resolver = Resolver { allow_private };
            let name = "localhost".parse().unwrap();
            resolver.resolve(name).await.map(Iterator::count)
        };
        assert!(resolve(true).await.unwrap() > 0);
        assert!(resolve(false).await.unwrap_err().is::<Refused>());
    }

    #[test]
    fn an_address_in_a_url_is_seen_in_every_spelling() {
        for url in [
            "http://127.0.0.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://[::1]:8/",
        ] {
            assert!(
                literal(&url.parse().unwrap()).unwrap().is_loopback(),
                "{url}"
            );
        }
        assert_eq!(literal(&"http://localhost/".parse().unwrap()), None);
    }
}
