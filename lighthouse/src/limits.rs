//! Bounds on connections. A member or operator always finds a place: strangers have few, and of
//! them the oldest makes room for a newcomer. Who somebody is shows only after the TLS handshake, so
//! everybody begins as a stranger.

use holdfast_core::keys::PublicKey;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Connections in all: four for each member of a full cluster.
const IN_ALL: usize = 65_536;
/// Descriptors that are left for everything else: the store, bundles, the mesh.
const SPARE: usize = 1024;
/// Connections of those who have not shown a member's or operator's key, in all, ...
const STRANGERS: usize = 4096;
/// ... from one IPv6 /48 ...
const PER_SITE: usize = 1024;
/// ... and from one IPv6 /64 or IPv4 address: a whole site may stand behind it, after a restart.
const PER_SOURCE: usize = 256;
/// Connections of one member or operator. A node takes about four, and one for each stream of an
/// operator.
const PER_KEY: usize = 256;
/// After this a stranger is sent away. Joining takes seconds; a body may take 30.
const STAY: Duration = Duration::from_secs(60);

/// An IPv6 host owns its /64.
pub fn group(source: IpAddr) -> IpAddr {
    prefix(source, 4)
}

/// A site, or a customer of a tunnel broker, owns its /48.
fn site(source: IpAddr) -> IpAddr {
    prefix(source, 3)
}

/// The first 16-bit groups of an IPv6 address; IPv4 as it is.
fn prefix(source: IpAddr, groups: usize) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(a) => {
            let mut segments = a.segments();
            segments[groups..].fill(0);
            Ipv6Addr::from(segments).into()
        }
        v4 => v4,
    }
}

/// Counts open connections.
#[derive(Debug, Clone)]
pub struct Connections {
    open: Arc<Mutex<Open>>,
}

#[derive(Debug)]
struct Open {
    most: usize,
    all: usize,
    /// Of members and operators.
    known: usize,
    next: u64,
    /// By age.
    strangers: BTreeMap<u64, Stranger>,
    by_key: HashMap<PublicKey, usize>,
}

#[derive(Debug)]
struct Stranger {
    source: IpAddr,
    leave: Arc<Notify>,
}

impl Open {
    /// Without those that were sent away.
    fn staying(&self) -> usize {
        self.known + self.strangers.len()
    }

    /// Sends the oldest stranger away of those that `which` chooses, if they are `most`.
    fn bound(&mut self, most: usize, which: impl Fn(&Stranger) -> bool) {
        let mut chosen = self.strangers.iter().filter(|(_, s)| which(s));
        let oldest = chosen.next().map(|(n, _)| *n);
        if let Some(oldest) = oldest.filter(|_| chosen.count() + 1 >= most) {
            self.send_away(oldest);
        }
    }

    fn send_away(&mut self, n: u64) {
        if let Some(stranger) = self.strangers.remove(&n) {
            stranger.leave.notify_one();
        }
    }
}

/// One open connection; dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    open: Arc<Mutex<Open>>,
    number: u64,
    leave: Arc<Notify>,
    /// Whose it is, once that is known.
    key: Mutex<Option<PublicKey>>,
}

fn hold<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    /// For a process that may open so many files.
    #[must_use]
    pub fn within(files: usize) -> Self {
        let most = files.saturating_sub(SPARE).max(files / 2);
        Self::at_most(most.min(IN_ALL))
    }

    fn at_most(most: usize) -> Self {
        let open = Open {
            most,
            all: 0,
            known: 0,
            next: 0,
            strangers: BTreeMap::new(),
            by_key: HashMap::new(),
        };
        Self {
            open: Arc::new(Mutex::new(open)),
        }
    }

    /// A place for a connection from `source`; none when members have all of them. Another stranger
    /// may have to leave for it.
    #[must_use]
    pub fn take(&self, source: IpAddr) -> Option<Place> {
        let mut open = hold(&self.open);
        // Those that were sent away still have their descriptors for a moment.
        if open.all >= open.most + SPARE / 2 {
            return None;
        }
        let (own, site_of) = (group(source), site(source));
        open.bound(PER_SOURCE, |s| group(s.source) == own);
        if own != site_of {
            open.bound(PER_SITE, |s| site(s.source) == site_of);
        }
        let most = open.most;
        open.bound(STRANGERS.min(most / 2), |_| true);
        if open.staying() >= most {
            open.bound(0, |_| true);
        }
        if open.staying() >= most {
            return None;
        }
        let (number, leave) = (open.next, Arc::new(Notify::new()));
        open.next += 1;
        open.all += 1;
        let stranger = Stranger {
            source,
            leave: leave.clone(),
        };
        open.strangers.insert(number, stranger);
        Some(Place {
            open: self.open.clone(),
            number,
            leave,
            key: Mutex::default(),
        })
    }
}

impl Place {
    /// The connection is a member's or operator's, with `key`; false when it has too many already.
    pub fn belongs_to(&self, key: PublicKey) -> bool {
        let mut open = hold(&self.open);
        let mut own = hold(&self.key);
        if own.is_some() {
            return true;
        }
        let count = open.by_key.entry(key).or_default();
        if *count >= PER_KEY {
            return false;
        }
        *count += 1;
        open.known += 1;
        *own = Some(key);
        open.strangers.remove(&self.number);
        true
    }

    /// Waits until the connection has to end: it is a stranger's, and has been there for long, or
    /// another needs its place.
    pub async fn ends(&self) {
        let waited = tokio::time::timeout(STAY, self.leave.notified()).await;
        if waited.is_err() && hold(&self.key).is_some() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = hold(&self.open);
        open.all = open.all.saturating_sub(1);
        open.strangers.remove(&self.number);
        let Some(key) = *hold(&self.key) else {
            return;
        };
        open.known = open.known.saturating_sub(1);
        if let Some(count) = open.by_key.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                open.by_key.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn sent_away(places: &[Place]) -> usize {
        let ends = places.iter().filter(|p| p.ends().now_or_never().is_some());
        ends.count()
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn the_oldest_stranger_makes_room_for_the_next_one_of_its_network() {
        let connections = Connections::within(65_536);
        let take = |source| connections.take(source).unwrap();
        let other = take(at("192.0.2.1"));
        let own: Vec<_> = (0..PER_SOURCE).map(|_| take(at("2001:db8::1"))).collect();
        assert_eq!(sent_away(&own), 0);
        let _next = take(at("2001:db8::2"));
        assert!(own[0].ends().now_or_never().is_some());
        assert_eq!(sent_away(&own[1..]), 0);
        // A /48 has no more by its many /64s.
        let site: Vec<_> = (0..PER_SITE)
            .map(|n| take(Ipv6Addr::new(0x2001, 0xdb8, 1, n as u16, 0, 0, 0, 1).into()))
            .collect();
        assert_eq!(sent_away(&site), 0);
        let _next = take(at("2001:db8:1:ffff::1"));
        assert_eq!(sent_away(&site), 1);
        assert!(other.ends().now_or_never().is_none());
        drop((own, site, other, _next));
    }

    #[tokio::test]
    async fn strangers_never_take_the_places_of_members() {
        let connections = Connections::at_most(1000);
        let key = |n: usize| PublicKey([n as u8; 32]);
        let take = |n: usize| connections.take(Ipv6Addr::from((n as u128) << 96).into());
        let strangers: Vec<_> = (0..2000).filter_map(take).collect();
        let staying = strangers.len() - sent_away(&strangers);
        assert_eq!(staying, 500);
        drop(strangers);
        // Each begins as a stranger, beside a flood of them.
        let mut flood = vec![];
        let members: Vec<_> = (0..900)
            .map(|n| {
                let place = take(n).unwrap();
                assert!(place.belongs_to(key(n / 4)));
                flood.push(take(10_000 + n).unwrap());
                flood.retain(|p| p.ends().now_or_never().is_none());
                place
            })
            .collect();
        assert_eq!(sent_away(&members), 0);
        assert!(members.len() + flood.len() <= 1001);
        drop((members, flood));
        let open = hold(&connections.open);
        assert!(open.by_key.is_empty() && open.strangers.is_empty() && open.all == 0);
    }

    #[tokio::test]
    async fn one_member_does_not_take_everything() {
        let connections = Connections::within(65_536);
        let key = PublicKey([1; 32]);
        let places: Vec<_> = (0..=PER_KEY)
            .map(|_| connections.take(at("192.0.2.1")).unwrap())
            .filter(|p| p.belongs_to(key))
            .collect();
        assert_eq!(places.len(), PER_KEY);
        assert!(places[0].belongs_to(key));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_leaves_in_time_and_a_member_stays() {
        let connections = Connections::within(65_536);
        let (stranger, member) = (
            connections.take(at("192.0.2.1")).unwrap(),
            connections.take(at("192.0.2.1")).unwrap(),
        );
        assert!(member.belongs_to(PublicKey([1; 32])));
        stranger.ends().await;
        let stays = tokio::time::timeout(4 * STAY, member.ends()).await;
        assert!(stays.is_err());
    }
}
