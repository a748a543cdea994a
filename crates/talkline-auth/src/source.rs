//! Where a connection comes from, for everything that is counted by source.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
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
}
