//! Packets that wait for a session, bounded over all peers together.
//!
//! boringtun would keep 256 packets (355 kB) for every peer; here one bound holds for all.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Bounds of the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Packets over all peers.
    pub packets: usize,
    /// Bytes over all peers.
    pub bytes: usize,
    /// Packets of one peer; its oldest makes room.
    pub peer_packets: usize,
    /// What waits longer is dropped: TCP has sent it again by then.
    pub age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            packets: 1024,
            bytes: 1 << 20,
            peer_packets: 128,
            age: Duration::from_secs(10),
        }
    }
}

/// The queue. A peer is named by its index.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    bounds: Bounds,
    peers: HashMap<u32, VecDeque<(Instant, Vec<u8>)>>,
    packets: usize,
    bytes: usize,
}

impl Pending {
    /// Keeps a copy of `packet` for `peer`; false when the bounds left no room.
    pub(crate) fn push(&mut self, peer: u32, packet: &[u8], now: Instant) -> bool {
        if let Some(queue) = self.peers.get_mut(&peer)
            && queue.len() >= self.bounds.peer_packets
            && let Some((_, old)) = queue.pop_front()
        {
            self.packets -= 1;
            self.bytes -= old.len();
        }
        if self.packets >= self.bounds.packets || self.bytes + packet.len() > self.bounds.bytes {
            return false;
        }
        self.packets += 1;
        self.bytes += packet.len();
        self.peers
            .entry(peer)
            .or_default()
            .push_back((now, packet.to_vec()));
        true
    }

    /// Everything that waits for `peer`, oldest first.
    pub(crate) fn take(&mut self, peer: u32) -> Vec<Vec<u8>> {
        let queue = self.peers.remove(&peer).unwrap_or_default();
        self.packets -= queue.len();
        self.bytes -= queue.iter().map(|(_, p)| p.len()).sum::<usize>();
        queue.into_iter().map(|(_, packet)| packet).collect()
    }

    /// Something waits for `peer`.
    pub(crate) fn waits(&self, peer: u32) -> bool {
        self.peers.contains_key(&peer)
    }

    /// Packets in the queue.
    pub(crate) fn len(&self) -> usize {
        self.packets
    }

    /// Drops what has waited too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        let Self {
            bounds,
            peers,
            packets,
            bytes,
        } = self;
        peers.retain(|_, queue| {
            while let Some((since, packet)) = queue.front() {
                if now.saturating_duration_since(*since) < bounds.age {
                    break;
                }
                *packets -= 1;
                *bytes -= packet.len();
                queue.pop_front();
            }
            !queue.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(u32, usize),
        Take(u32),
        Later(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u32..5, 0usize..1400).prop_map(|(p, n)| Step::Push(p, n)),
            1 => (0u32..5).prop_map(Step::Take),
            1 => (0u64..8).prop_map(Step::Later),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn bounds_and_counts_hold(steps in proptest::collection::vec(step(), 0..200)) {
            let bounds = Bounds {
                packets: 24, bytes: 9000, peer_packets: 8, age: Duration::from_secs(10),
            };
            let mut pending = Pending { bounds, ..Pending::default() };
            let mut now = Instant::now();
            for step in steps {
                match step {
                    Step::Push(peer, len) => { pending.push(peer, &vec![0; len], now); }
                    Step::Take(peer) => {
                        pending.take(peer);
                        prop_assert!(!pending.waits(peer));
                    }
                    Step::Later(secs) => {
                        now += Duration::from_secs(secs);
                        pending.expire(now);
                    }
                }
                let queues = || pending.peers.values().flatten();
                prop_assert_eq!(pending.packets, queues().count());
                prop_assert_eq!(pending.bytes, queues().map(|(_, p)| p.len()).sum::<usize>());
                prop_assert!(pending.packets <= bounds.packets && pending.bytes <= bounds.bytes);
                prop_assert!(pending.peers.values().all(|q| q.len() <= bounds.peer_packets));
            }
            pending.expire(now + Duration::from_secs(60));
            prop_assert_eq!((pending.packets, pending.bytes, pending.peers.len()), (0, 0, 0));
        }
    }

    #[test]
    fn order_is_kept_and_the_oldest_makes_room() {
        let mut pending = Pending {
            bounds: Bounds {
                peer_packets: 3,
                ..Bounds::default()
            },
            ..Pending::default()
        };
        for n in 0..5u8 {
            assert!(pending.push(1, &[n], Instant::now()));
        }
        assert_eq!(pending.take(1), [vec![2], vec![3], vec![4]]);
        assert_eq!(pending.len(), 0);
    }
}
