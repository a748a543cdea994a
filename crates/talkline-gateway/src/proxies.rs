//! Whom a request comes from, when front ends stand between.
//!
//! `Forwarded` (RFC 7239), `X-Forwarded-For` and `X-Forwarded-Proto` are read only when the peer is
//! one of `server.trustedProxies`: anybody else could write there what it likes. The chain is read
//! from its right end, which the peer wrote, and the client is the first address that is no trusted
//! proxy; what stands left of it was written by the client and is never looked at.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, StatusCode, header};
use ipnet::IpNet;

use crate::refusal::HttpRefusal;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Proxies of one chain that are looked at.
const HOPS_MAX: usize = 32;

/// The front ends whose forwarded headers are believed.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

/// How the client reaches the relay, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// Over TLS, by the relay itself or by a trusted proxy.
    Https,
    /// In plain text: a trusted proxy says so.
    Http,
    /// In plain text, unless a front end that nobody named terminates TLS.
    Unknown,
}

/// The client behind a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// Its address. A private one when a proxy of a private network is not listed.
    pub(crate) address: IpAddr,
    pub(crate) reached: Reached,
}

impl TrustedProxies {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether this is one of them; on a socket for both families IPv4 peers come as IPv6 addresses.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Finds the client of a request that came from `peer`.
    ///
    /// # Errors
    ///
    /// 400 when a trusted proxy contradicts itself or writes what cannot be read: guessing would
    /// let the client choose.
    pub(crate) fn sender(
        &self,
        peer: SocketAddr,
        tls: bool,
        headers: &HeaderMap,
    ) -> Result<Sender, HttpRefusal> {
        let peer = peer.ip().to_canonical();
        let direct = Sender {
            address: peer,
            reached: if tls {
                Reached::Https
            } else {
                Reached::Unknown
            },
        };
        if !self.trusts(peer) {
            return Ok(direct);
        }
        let standard = forwarded(headers).ok_or_else(malformed)?;
        let usual = x_forwarded_for(headers).ok_or_else(malformed)?;
        let (from_standard, from_usual) = (self.walk(&standard)?, self.walk(&usual)?);
        let hop = match (from_standard, from_usual) {
            (Some(standard), Some(usual)) if standard.0 != usual.0 => return Err(conflict()),
            (Some((address, protocol)), _) => Some((address, protocol)),
            (None, usual) => usual,
        };
        let stated = x_forwarded_proto(headers)?;
        let protocol = match (hop.and_then(|(_, protocol)| protocol), stated) {
            (Some(one), Some(other)) if one != other => return Err(conflict()),
            (one, other) => one.or(other),
        };
        Ok(Sender {
            address: hop.map_or(peer, |(address, _)| address),
            reached: protocol.unwrap_or(direct.reached),
        })
    }

    /// The right-most address that is no trusted proxy; when all are, the left-most.
    fn walk(&self, chain: &[Hop<'_>]) -> Result<Option<(IpAddr, Option<Reached>)>, HttpRefusal> {
        let mut found = None;
        for hop in chain.iter().rev() {
            let address = match node(hop.node) {
                Node::Address(address) => address,
                // The proxy keeps the address to itself; the last one that is known stands for it.
                Node::Hidden => return Ok(found),
                Node::Malformed => return Err(malformed()),
            };
            found = Some((address, hop.protocol));
            if !self.trusts(address) {
                break;
            }
        }
        Ok(found)
    }
}

/// One element of a chain.
#[derive(Clone, Copy, Debug)]
struct Hop<'a> {
    node: &'a str,
    protocol: Option<Reached>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Address(IpAddr),
    /// `unknown`, or a name that begins with `_` (RFC 7239 section 6.3).
    Hidden,
    Malformed,
}

fn node(text: &str) -> Node {
    let text = text.trim();
    if text.eq_ignore_ascii_case("unknown") || text.starts_with('_') {
        return Node::Hidden;
    }
    // RFC 7239 section 6: IPv6 in brackets, a port may follow. X-Forwarded-For has it bare as well.
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(|| {
            let bare = text.strip_prefix('[')?.strip_suffix(']')?;
            bare.parse().ok()
        });
    address.map_or(Node::Malformed, |address| {
        Node::Address(address.to_canonical())
    })
}

/// The elements of all lines of a header, in order. `None` when a line is not text.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Vec<&'a str>> {
    let mut all = Vec::new();
    for line in headers.get_all(name) {
        all.extend(line.to_str().ok()?.split(',').map(str::trim));
    }
    let unread = all.len().saturating_sub(HOPS_MAX);
    Some(all.split_off(unread))
}

fn x_forwarded_for(headers: &HeaderMap) -> Option<Vec<Hop<'_>>> {
    let nodes = elements(headers, &X_FORWARDED_FOR)?;
    let hop = |node| Hop {
        node,
        protocol: None,
    };
    Some(nodes.into_iter().map(hop).collect())
}

/// Commas in quoted values do not occur in `for` and `proto`; an element that has one does not parse
/// and is refused.
fn forwarded(headers: &HeaderMap) -> Option<Vec<Hop<'_>>> {
    let elements = elements(headers, &header::FORWARDED)?;
    Some(elements.into_iter().map(forwarded_hop).collect())
}

fn forwarded_hop(element: &str) -> Hop<'_> {
    let mut hop = Hop {
        node: "unknown",
        protocol: None,
    };
    for pair in element.split(';') {
        let Some((name, value)) = pair.split_once('=') else {
            return Hop {
                node: "",
                protocol: None,
            };
        };
        let value = value.trim();
        let value = value
            .strip_prefix('"')
            .and_then(|inner| inner.strip_suffix('"'))
            .unwrap_or(value);
        match name.trim() {
            name if name.eq_ignore_ascii_case("for") => hop.node = value,
            name if name.eq_ignore_ascii_case("proto") => hop.protocol = protocol(value),
            _ => {}
        }
    }
    hop
}

fn protocol(text: &str) -> Option<Reached> {
    // Some proxies say the WebSocket's scheme.
    match text.to_ascii_lowercase().as_str() {
        "https" | "wss" => Some(Reached::Https),
        "http" | "ws" => Some(Reached::Http),
        _ => None,
    }
}

/// What the proxy nearest to the relay says: the right-most value.
fn x_forwarded_proto(headers: &HeaderMap) -> Result<Option<Reached>, HttpRefusal> {
    let values = elements(headers, &X_FORWARDED_PROTO).ok_or_else(malformed)?;
    match values.last() {
        None => Ok(None),
        Some(value) => protocol(value).map(Some).ok_or_else(malformed),
    }
}

fn malformed() -> HttpRefusal {
    HttpRefusal::new(
        StatusCode::BAD_REQUEST,
        "forwarded_malformed",
        "the proxy in front of the relay sent a forwarded header that cannot be read",
    )
}

fn conflict() -> HttpRefusal {
    HttpRefusal::new(
        StatusCode::BAD_REQUEST,
        "forwarded_conflict",
        "the proxy in front of the relay sent Forwarded and X-Forwarded headers that differ; it has to remove one of them",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Peer, header lines, and what is made of them.
    fn check(peer: &str, lines: &[(&str, &str)], expected: &str) {
        let networks = ["10.0.0.0/8", "fd00::/8", "127.0.0.1/32"];
        let proxies = TrustedProxies::new(networks.iter().map(|n| n.parse().unwrap()).collect());
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 4711);
        let got = match proxies.sender(peer, false, &headers) {
            Ok(Sender { address, reached }) => format!("{address} {reached:?}"),
            Err(refusal) => refusal.code().to_owned(),
        };
        assert_eq!(got, expected, "{peer} {lines:?}");
    }

    const XFF: &str = "x-forwarded-for";
    const XFP: &str = "x-forwarded-proto";
    const FWD: &str = "forwarded";

    #[test]
    fn strangers_write_in_vain() {
        for line in [
            (XFF, "1.1.1.1"),
            (FWD, "for=1.1.1.1;proto=https"),
            (XFP, "https"),
            (XFF, "?"),
        ] {
            check("9.9.9.9", &[line], "9.9.9.9 Unknown");
        }
        check("::ffff:9.9.9.9", &[(XFF, "1.1.1.1")], "9.9.9.9 Unknown");
    }

    /// A listener for both families shows IPv4 peers in IPv6's clothes, before any head is read.
    #[test]
    fn a_front_end_is_known_on_a_socket_for_both_families() {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        for (peer, trusted) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("::ffff:9.9.9.9", false),
            ("::10.0.0.1", false),
        ] {
            assert_eq!(proxies.trusts(peer.parse().unwrap()), trusted, "{peer}");
        }
    }

    #[test]
    fn the_right_most_stranger_is_the_client() {
        check("10.0.0.1", &[], "10.0.0.1 Unknown");
        check("10.0.0.1", &[(XFF, "1.1.1.1")], "1.1.1.1 Unknown");
        check("::ffff:10.0.0.1", &[(XFF, "1.1.1.1")], "1.1.1.1 Unknown");
        check(
            "10.0.0.1",
            &[(XFF, "127.0.0.1, 1.1.1.1")],
            "1.1.1.1 Unknown",
        );
        check(
            "10.0.0.1",
            &[(XFF, "evil, 1.1.1.1, 10.2.2.2")],
            "1.1.1.1 Unknown",
        );
        check(
            "10.0.0.1",
            &[(XFF, "8.8.8.8"), (XFF, "1.1.1.1")],
            "1.1.1.1 Unknown",
        );
        check(
            "10.0.0.1",
            &[(XFF, "10.3.3.3, 10.2.2.2")],
            "10.3.3.3 Unknown",
        );
        check("fd00::1", &[(XFF, "2001:db8::1")], "2001:db8::1 Unknown");
        check("10.0.0.1", &[(XFF, "1.1.1.1:443")], "1.1.1.1 Unknown");
        check(
            "10.0.0.1",
            &[(XFF, "[2001:db8::1]:443")],
            "2001:db8::1 Unknown",
        );
        check(
            "10.0.0.1",
            &[(FWD, "for=8.8.8.8, for=\"[2001:db8::1]\";proto=https")],
            "2001:db8::1 Https",
        );
        check(
            "10.0.0.1",
            &[(FWD, "For=1.1.1.1;By=10.0.0.1;Proto=HTTP")],
            "1.1.1.1 Http",
        );
        check("10.0.0.1", &[(FWD, "for=_hidden")], "10.0.0.1 Unknown");
        check(
            "10.0.0.1",
            &[(FWD, "for=1.1.1.1, for=unknown")],
            "10.0.0.1 Unknown",
        );
        check(
            "10.0.0.1",
            &[(XFF, "1.1.1.1"), (XFP, "https")],
            "1.1.1.1 Https",
        );
        check(
            "10.0.0.1",
            &[(XFF, "1.1.1.1"), (XFP, "http, https")],
            "1.1.1.1 Https",
        );
    }

    #[test]
    fn contradictions_and_nonsense_are_refused() {
        check(
            "10.0.0.1",
            &[(XFF, "1.1.1.1"), (FWD, "for=1.1.1.1")],
            "1.1.1.1 Unknown",
        );
        check(
            "10.0.0.1",
            &[(XFF, "1.1.1.1"), (FWD, "for=8.8.8.8")],
            "forwarded_conflict",
        );
        check(
            "10.0.0.1",
            &[(FWD, "for=1.1.1.1;proto=http"), (XFP, "https")],
            "forwarded_conflict",
        );
        for line in [
            (XFF, "1.1.1.1, nonsense"),
            (XFF, ""),
            (FWD, "nonsense"),
            (FWD, "for=\"1.1.1.1"),
            (XFP, "gopher"),
            (XFF, "1.1.1.1,"),
        ] {
            check("10.0.0.1", &[line], "forwarded_malformed");
        }
    }
}
