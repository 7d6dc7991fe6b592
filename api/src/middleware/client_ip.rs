//! The client's address, behind any number of trusted proxies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{Extensions, HeaderMap};
use ipnet::IpNet;

/// The address a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientIp(pub IpAddr);

/// The other end of the TCP connection; [`crate::serve`] adds it to every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl ClientIp {
    /// Finds the address: the connection's own, or, where that is a trusted proxy's, the last one in
    /// `X-Forwarded-For` that is not. What a client itself wrote stands further left and never counts.
    #[must_use]
    pub fn of(headers: &HeaderMap, extensions: &Extensions, trusted: &[IpNet]) -> Self {
        let peer = extensions
            .get::<Peer>()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let is_trusted = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
        let mut client = peer.to_canonical();
        let values: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        let hops = values
            .iter()
            .rev()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.rsplit(','));
        for hop in hops {
            if !is_trusted(&client) {
                break;
            }
            match address(hop.trim()) {
                Some(ip) => client = ip.to_canonical(),
                // A trusted proxy wrote something else; its own address is the best there is.
                None => break,
            }
        }
        Self(client)
    }
}

/// Proxies write `1.2.3.4`, `1.2.3.4:5678`, `::1` or `[::1]:5678`.
fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut extensions = Extensions::new();
        extensions.insert(Peer(peer.parse().unwrap()));
        let values = forwarded
            .iter()
            .map(|value| HeaderValue::from_str(value).unwrap());
        let name = http::HeaderName::from_static("x-forwarded-for");
        let mut headers = HeaderMap::new();
        values.for_each(|value| {
            headers.append(name.clone(), value);
        });
        let trusted: Vec<IpNet> = trusted
            .iter()
            .map(|network| network.parse().unwrap())
            .collect();
        ClientIp::of(&headers, &extensions, &trusted).0.to_string()
    }

    #[test]
    fn without_trusted_proxies_the_header_is_ignored() {
        assert_eq!(
            client("203.0.113.9:1000", &["198.51.100.1"], &[]),
            "203.0.113.9"
        );
        assert_eq!(
            client("203.0.113.9:1000", &["198.51.100.1"], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
    }

    #[test]
    fn the_last_untrusted_hop_counts_whatever_the_client_wrote_before_it() {
        let trusted = &["10.0.0.0/8"];
        assert_eq!(
            client("10.0.0.1:1", &["6.6.6.6, 198.51.100.1"], trusted),
            "198.51.100.1"
        );
        assert_eq!(
            client(
                "10.0.0.1:1",
                &["6.6.6.6, 198.51.100.1", "10.0.0.2"],
                trusted
            ),
            "198.51.100.1"
        );
        assert_eq!(
            client("10.0.0.1:1", &["198.51.100.1:4711"], trusted),
            "198.51.100.1"
        );
        assert_eq!(
            client("10.0.0.1:1", &["[2001:db8::1]:4711"], trusted),
            "2001:db8::1"
        );
    }

    #[test]
    fn nonsense_from_a_proxy_leaves_the_proxy() {
        assert_eq!(
            client("10.0.0.1:1", &["unknown"], &["10.0.0.0/8"]),
            "10.0.0.1"
        );
        assert_eq!(client("10.0.0.1:1", &[], &["10.0.0.0/8"]), "10.0.0.1");
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_the_same_client() {
        assert_eq!(client("[::ffff:203.0.113.9]:1", &[], &[]), "203.0.113.9");
    }
}
