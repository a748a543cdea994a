//! Where a connection comes from, for everything that is counted by source.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A source as it is counted: an IPv4 address, or the /64 of an IPv6 address, because one host
/// usually has a whole /64 to choose addresses from (RFC 6177 section 2).
///
/// Its `Debug` shows the address; log it at debug level only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    /// The source that an address counts as. An IPv4 address in IPv6's clothes (`::ffff:a.b.c.d`)
    /// counts as the IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }
}

/// Bounds what every source may have at one time, such as connections that are not yet admitted.
///
/// Holds one entry for each source that has something, so that a bound on the whole bounds the
/// table too. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct SourcePermits(Arc<Counts>);

struct Counts {
    each_max: u32,
    held: Mutex<HashMap<Source, u32>>,
}

impl SourcePermits {
    /// Lets each source hold `each_max` permits.
    pub fn new(each_max: u32) -> Self {
        Self(Arc::new(Counts {
            each_max,
            held: Mutex::default(),
        }))
    }

    /// A permit, unless the source has all of its permits already.
    pub fn acquire(&self, source: Source) -> Option<SourcePermit> {
        let mut held = self.0.lock();
        let count = held.get(&source).copied().unwrap_or_default();
        if count >= self.0.each_max {
            return None;
        }
        held.insert(source, count + 1);
        Some(SourcePermit {
            counts: Arc::clone(&self.0),
            source,
        })
    }

    /// How many sources hold a permit.
    pub fn sources(&self) -> usize {
        self.0.lock().len()
    }
}

impl fmt::Debug for SourcePermits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourcePermits({} each)", self.0.each_max)
    }
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Source, u32>> {
        // Nothing panics while it is held; if something did, a count would be one too high.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of a source's permits; given back when dropped.
#[derive(Debug)]
pub struct SourcePermit {
    counts: Arc<Counts>,
    source: Source,
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counts")
    }
}

impl Drop for SourcePermit {
    fn drop(&mut self) {
        let mut held = self.counts.lock();
        match held.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                held.remove(&self.source);
            }
        }
    }
}

// === Proxies ===

/// A range of addresses, as `10.0.0.0/8`, `fd00::/8` or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Invariant: at most 32 for IPv4, 128 for IPv6.
    prefix: u8,
}

/// A text is no range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a range of addresses such as 10.0.0.0/8")]
pub struct NetworkError;

impl Network {
    /// Whether the range holds an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.prefix))
                    .unwrap_or(0);
                u32::from(own) & mask == u32::from(other) & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.prefix))
                    .unwrap_or(0);
                u128::from(own) & mask == u128::from(other) & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| NetworkError)?
            }
            Some(_) => return Err(NetworkError),
        };
        (prefix <= most)
            .then_some(Self { address, prefix })
            .ok_or(NetworkError)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The proxies whose word about a request's sender is taken (`server.trustedProxies`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// Where a request came from, by the word of the proxies that are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The client's address.
    pub address: IpAddr,
    /// The scheme that the client used, when a trusted proxy says it.
    pub scheme: Option<SenderScheme>,
    /// The host that the client asked for, when a trusted proxy says it. Not checked.
    pub host: Option<String>,
}

/// The scheme of `X-Forwarded-Proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderScheme {
    /// `http` or `ws`.
    Plain,
    /// `https` or `wss`.
    Tls,
}

impl TrustedProxies {
    /// Trusts the proxies in these ranges.
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Whether the address is a trusted proxy's.
    pub fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Who sent the request that came from `peer`.
    ///
    /// `X-Forwarded-For` is read from its right end: each proxy appends whom it got the request
    /// from, so the first address that is not a trusted proxy's is the client's, and whatever
    /// stands left of it was written by that client. An entry that is no address ends the walk at
    /// the proxy that wrote it. Without a trusted `peer` no such header counts.
    pub fn sender<'a>(
        &self,
        peer: IpAddr,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Sender {
        let peer = peer.to_canonical();
        let mut sender = Sender {
            address: peer,
            scheme: None,
            host: None,
        };
        if !self.trust(peer) {
            return sender;
        }
        let mut hops: Vec<&[u8]> = Vec::new();
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("x-forwarded-for") {
                hops.extend(value.split(|byte| *byte == b','));
            } else if name.eq_ignore_ascii_case("x-forwarded-proto") {
                sender.scheme = scheme(last_word(value));
            } else if name.eq_ignore_ascii_case("x-forwarded-host") {
                sender.host = Some(last_word(value).to_owned()).filter(|host| is_host(host));
            }
        }
        for hop in hops.into_iter().rev() {
            let Some(address) = std::str::from_utf8(hop).ok().and_then(hop_address) else {
                break;
            };
            sender.address = address;
            if !self.trust(address) {
                break;
            }
        }
        sender
    }
}

/// The last of a list, which is what the nearest proxy wrote.
fn last_word(value: &[u8]) -> &str {
    let text = std::str::from_utf8(value).unwrap_or_default();
    text.rsplit(',').next().unwrap_or_default().trim()
}

fn scheme(word: &str) -> Option<SenderScheme> {
    match word.to_ascii_lowercase().as_str() {
        "http" | "ws" => Some(SenderScheme::Plain),
        "https" | "wss" => Some(SenderScheme::Tls),
        _ => None,
    }
}

fn is_host(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte))
}

/// An address with or without a port, as Azure's Application Gateway writes it
/// (<https://learn.microsoft.com/azure/application-gateway/how-application-gateway-works>).
fn hop_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (host, port) = text.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
    .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn sources_count_together_where_one_host_can_change_its_address() {
        let check = |one: &str, other: &str, same: bool| {
            assert_eq!(
                Source::of(ip(one)) == Source::of(ip(other)),
                same,
                "{one} {other}"
            );
        };
        check("192.0.2.1", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
        check("192.0.2.1", "::ffff:192.0.2.1", true);
        check("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", true);
        check("2001:db8:0:1::1", "2001:db8:0:2::1", false);
    }

    #[test]
    fn permits_come_back() {
        let permits = SourcePermits::new(2);
        let (one, other) = (Source::of(ip("192.0.2.1")), Source::of(ip("192.0.2.2")));
        let first = permits.acquire(one).unwrap();
        let second = permits.acquire(one).unwrap();
        assert!(permits.acquire(one).is_none());
        let third = permits.acquire(other).unwrap();
        assert_eq!(permits.sources(), 2);
        drop(first);
        let again = permits.acquire(one).unwrap();
        assert!(permits.acquire(one).is_none());
        drop((second, third, again));
        assert_eq!(permits.sources(), 0);
    }

    #[test]
    fn networks() {
        let check = |network: &str, address: &str, inside: bool| {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.contains(ip(address)), inside, "{network} {address}");
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.4", false);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "2001:db8::1", true);
        check("fd00::/8", "fdff::1", true);
        check("fd00::/8", "fe00::1", false);
        check("10.0.0.0/8", "::ffff:10.0.0.1", true);
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
            "x",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(NetworkError), "{bad}");
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let check = |peer: &str, headers: &[(&str, &str)], expected: &str| {
            let fields = headers
                .iter()
                .map(|(name, value)| (*name, value.as_bytes()));
            let sender = proxies.sender(ip(peer), fields);
            let scheme = sender.scheme.map(|scheme| format!(" {scheme:?}"));
            let host = sender.host.map(|host| format!(" {host}"));
            let found = format!(
                "{}{}{}",
                sender.address,
                scheme.unwrap_or_default(),
                host.unwrap_or_default()
            );
            assert_eq!(found, expected, "{peer} {headers:?}");
        };
        const XFF: &str = "x-forwarded-for";
        check("192.0.2.1", &[(XFF, "198.51.100.7")], "192.0.2.1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &[(XFF, "198.51.100.7")], "198.51.100.7");
        check(
            "10.0.0.1",
            &[(XFF, "127.0.0.1, 198.51.100.7, 10.0.0.9")],
            "198.51.100.7",
        );
        check(
            "10.0.0.1",
            &[(XFF, "127.0.0.1"), ("X-Forwarded-For", "198.51.100.7")],
            "198.51.100.7",
        );
        check("10.0.0.1", &[(XFF, "10.0.0.2, 10.0.0.3")], "10.0.0.2");
        check(
            "10.0.0.1",
            &[(XFF, "198.51.100.7, nonsense, 10.0.0.3")],
            "10.0.0.3",
        );
        check("10.0.0.1", &[(XFF, "198.51.100.7:4711")], "198.51.100.7");
        check("10.0.0.1", &[(XFF, "[2001:db8::1]:4711")], "2001:db8::1");
        check("10.0.0.1", &[(XFF, "2001:db8::1")], "2001:db8::1");
        check("::ffff:10.0.0.1", &[(XFF, "198.51.100.7")], "198.51.100.7");
        check(
            "10.0.0.1",
            &[
                ("x-forwarded-proto", "http, https"),
                ("x-forwarded-host", "evil.test, talk.test"),
            ],
            "10.0.0.1 Tls talk.test",
        );
        check(
            "192.0.2.1",
            &[
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "talk.test"),
            ],
            "192.0.2.1",
        );
        check(
            "10.0.0.1",
            &[("x-forwarded-host", "a b"), ("x-forwarded-proto", "gopher")],
            "10.0.0.1",
        );
    }
}
