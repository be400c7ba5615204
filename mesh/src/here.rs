//! What this member knows of its own places, and whom it asks for a relay: shared by all peers.

use crate::fragment::Narrow;
use crate::keys::MeshKey;
use crate::probe::MAX_CANDIDATES;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Peers that wait for a channel at a time; more ask again.
const WANTED: usize = 256;

#[derive(Debug, Default)]
struct Places {
    local: Vec<SocketAddr>,
    /// As lighthouses saw it.
    observed: BTreeMap<MeshKey, SocketAddr>,
    avoid: Vec<IpNet>,
    /// Peers come to this member: where they say that they are it seeks none.
    stays: bool,
}

/// Places of one address that are tried: its own port, and what its NAT showed two lighthouses.
const OF_ONE_ADDRESS: usize = 4;

/// Places as lighthouses saw them that are named in any case: a router can give this member more
/// addresses of its own than all places that are named.
const RESERVED: usize = 4;

/// Shared by all peers of a member.
#[derive(Debug)]
pub(crate) struct Here {
    places: Mutex<Places>,
    /// Places that full datagrams do not reach whole.
    pub narrow: Arc<Narrow>,
    /// Counts changes of the places that peers are told.
    version: AtomicU64,
    wanted: mpsc::Sender<MeshKey>,
    receiver: Mutex<Option<mpsc::Receiver<MeshKey>>>,
}

impl Default for Here {
    fn default() -> Self {
        let (wanted, receiver) = mpsc::channel(WANTED);
        Self {
            places: Mutex::default(),
            narrow: Arc::default(),
            version: AtomicU64::new(0),
            wanted,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

impl Here {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This member's own addresses, and networks in which no peer is sought.
    pub(crate) fn set(&self, local: Vec<SocketAddr>, avoid: Vec<IpNet>) {
        let mut places = self.places();
        places.local = local;
        places.avoid = avoid;
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// Peers come to this member, which is where everybody knows: no place that they name is tried.
    pub(crate) fn seek_nobody(&self) {
        self.places().stays = true;
    }

    /// Another number after each change of the places that peers are told.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// A lighthouse saw this member at `seen`.
    pub(crate) fn observed(&self, lighthouse: MeshKey, seen: SocketAddr) {
        let known = self.places().observed.insert(lighthouse, seen);
        if known != Some(seen) {
            self.version.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("lighthouse {lighthouse} sees this member at {seen}");
        }
    }

    /// What lighthouses saw counts no more: the address changed.
    pub(crate) fn moved(&self) {
        self.places().observed.clear();
    }

    /// Where this member may be reached: own addresses first, then as it was seen.
    pub(crate) fn candidates(&self) -> Vec<SocketAddr> {
        let places = self.places();
        let once = |of: Vec<SocketAddr>| {
            let mut all: Vec<SocketAddr> = vec![];
            for place in of {
                if !all.contains(&place) && !places.avoids(place.ip()) {
                    all.push(place);
                }
            }
            all
        };
        let seen = once(places.observed.values().copied().collect());
        let sure = &seen[..seen.len().min(RESERVED)];
        let mut room = MAX_CANDIDATES - sure.len();
        let mut all = once(places.local.clone());
        all.retain(|place| {
            let stays = room > 0 || sure.contains(place);
            if !sure.contains(place) {
                room = room.saturating_sub(1);
            }
            stays
        });
        let more: Vec<_> = seen.into_iter().filter(|at| !all.contains(at)).collect();
        all.extend(more);
        all.truncate(MAX_CANDIDATES);
        all
    }

    /// Whether a peer may be sought there.
    pub(crate) fn may_seek(&self, at: SocketAddr) -> bool {
        !self.places().avoids(at.ip())
    }

    /// Of the places that a peer names, those where it may be sought: of one address a few only, so
    /// that nobody has a third party asked at all its ports.
    pub(crate) fn sought(&self, named: &[SocketAddr]) -> Vec<SocketAddr> {
        let places = self.places();
        let mut sought: Vec<SocketAddr> = vec![];
        for at in named
            .iter()
            .filter(|at| !places.stays && !places.avoids(at.ip()))
        {
            if sought.iter().filter(|s| s.ip() == at.ip()).count() < OF_ONE_ADDRESS {
                sought.push(*at);
            }
        }
        sought
    }

    /// These peers are gone: what they saw counts no more.
    pub(crate) fn forget(&self, gone: &[MeshKey]) {
        self.places().observed.retain(|key, _| !gone.contains(key));
    }

    /// Somebody asks a lighthouse for a channel to `peer`.
    pub(crate) fn want_relay(&self, peer: MeshKey) {
        // Nobody listens, or too many wait: it is asked again.
        let _ = self.wanted.try_send(peer);
    }

    /// Peers that want a channel; once.
    pub(crate) fn relay_wanted(&self) -> Option<mpsc::Receiver<MeshKey>> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.take()
    }
}

#[cfg(test)]
impl Here {
    pub(crate) fn give_back(&self, wanted: mpsc::Receiver<MeshKey>) {
        *self.receiver.lock().unwrap() = Some(wanted);
    }
}

impl Places {
    fn avoids(&self, ip: IpAddr) -> bool {
        self.avoid.iter().any(|net| net.contains(&ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_mesh_itself_are_never_named() {
        let here = Here::default();
        let [lan, inner, public]: [SocketAddr; 3] =
            ["192.168.1.5:1", "100.64.0.9:1", "203.0.113.1:7"].map(|a| a.parse().unwrap());
        here.set(
            vec![lan, inner, lan],
            vec!["100.64.0.0/20".parse().unwrap()],
        );
        here.observed(MeshKey([1; 32]), public);
        here.observed(MeshKey([2; 32]), public);
        assert_eq!(here.candidates(), [lan, public]);
        assert!(!here.may_seek(inner) && here.may_seek(lan));
        here.moved();
        assert_eq!(here.candidates(), [lan]);
    }

    #[test]
    fn own_addresses_do_not_crowd_out_where_lighthouses_see_this_member() {
        let here = Here::default();
        let at = |net: u8, n: u8| SocketAddr::from(([net, 0, 2, n], 1));
        let own: Vec<_> = (0..40).map(|n| at(192, n)).collect();
        here.set(own.clone(), vec![]);
        assert_eq!(here.candidates(), own[..MAX_CANDIDATES]);
        here.observed(MeshKey([1; 32]), at(203, 1));
        // One of its own.
        here.observed(MeshKey([2; 32]), own[39]);
        let all = here.candidates();
        assert_eq!(all[..MAX_CANDIDATES - 2], own[..MAX_CANDIDATES - 2]);
        assert_eq!(all[MAX_CANDIDATES - 2..], [own[39], at(203, 1)]);
        // Nor do many lighthouses crowd out its own, and there is room for all.
        for n in 3..40 {
            here.observed(MeshKey([n; 32]), at(203, n));
        }
        let all = here.candidates();
        let named = all.iter().filter(|a| own.contains(a)).count();
        assert_eq!((all.len(), named), (MAX_CANDIDATES, MAX_CANDIDATES - 3));
        here.set(vec![own[0]], vec![]);
        assert_eq!(here.candidates().len(), MAX_CANDIDATES);
    }
}
