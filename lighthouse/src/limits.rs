//! Bounds per source address, so that one peer cannot take everything.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Connections of one source at a time. A node takes about four; a whole site may stand behind
/// one address.
const PER_SOURCE: usize = 256;
/// Connections in all: four for each member of a full cluster; the system's bound on open files may
/// be lower.
const IN_ALL: usize = 65_536;
/// Joins and offers that one source may make at once ...
const BURST: u32 = 60;
/// ... and the time after which one more is allowed.
const REFILL: Duration = Duration::from_millis(500);
/// Sources whose joins are counted; beyond it the ones at rest are forgotten.
const SOURCES: usize = 4096;

/// An IPv6 host owns its /64.
fn group(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(a) => {
            let [a, b, c, d, ..] = a.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// Counts open connections.
#[derive(Debug, Default, Clone)]
pub struct Connections {
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    by_source: HashMap<IpAddr, usize>,
    all: usize,
}

/// One open connection; dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    open: Arc<Mutex<Open>>,
    source: IpAddr,
}

impl Connections {
    /// A place for a connection from `source`; none when it has too many.
    #[must_use]
    pub fn take(&self, source: IpAddr) -> Option<Place> {
        let source = group(source);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.by_source.get(&source).copied().unwrap_or(0);
        if own >= PER_SOURCE || open.all >= IN_ALL {
            return None;
        }
        open.by_source.insert(source, own + 1);
        open.all += 1;
        Some(Place {
            open: self.open.clone(),
            source,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        if let Some(count) = open.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&self.source);
            }
        }
    }
}

/// A token bucket per source, for joins.
#[derive(Debug, Default)]
pub struct Joins {
    buckets: Mutex<HashMap<IpAddr, (u32, Instant)>>,
}

impl Joins {
    /// Whether `source` may try to join now.
    pub fn allow(&self, source: IpAddr, now: Instant) -> bool {
        let source = group(source);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= SOURCES && !buckets.contains_key(&source) {
            buckets.retain(|_, bucket| filled(*bucket, now).0 < BURST);
            if buckets.len() >= SOURCES {
                return false;
            }
        }
        let bucket = buckets.entry(source).or_insert((BURST, now));
        *bucket = filled(*bucket, now);
        let allowed = bucket.0 > 0;
        bucket.0 = bucket.0.saturating_sub(1);
        allowed
    }
}

fn filled((tokens, since): (u32, Instant), now: Instant) -> (u32, Instant) {
    let steps = now.saturating_duration_since(since).as_millis() / REFILL.as_millis();
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    if tokens.saturating_add(steps) >= BURST {
        return (BURST, now);
    }
    (tokens + steps, since + REFILL * steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_does_not_take_everything() {
        let connections = Connections::default();
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let same: IpAddr = "2001:db8::2".parse().unwrap();
        let mut places: Vec<_> = (0..PER_SOURCE)
            .map(|_| connections.take(a).unwrap())
            .collect();
        assert!(connections.take(same).is_none());
        assert!(connections.take("192.0.2.1".parse().unwrap()).is_some());
        places.pop();
        assert!(connections.take(same).is_some());
        drop(places);
        let open = connections.open.lock().unwrap();
        assert!(open.by_source.is_empty() && open.all == 0);
    }

    #[test]
    fn joins_are_allowed_again_after_a_while() {
        let (joins, now) = (Joins::default(), Instant::now());
        let a: IpAddr = "192.0.2.1".parse().unwrap();
        let allowed = (0..100).filter(|_| joins.allow(a, now)).count();
        assert_eq!(allowed, BURST as usize);
        assert!(joins.allow("192.0.2.2".parse().unwrap(), now));
        assert!(!joins.allow(a, now + REFILL / 2));
        assert!(joins.allow(a, now + REFILL));
        assert!(!joins.allow(a, now + REFILL));
    }
}
