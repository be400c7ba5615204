//! What the caller says about peers, and the difference between two such statements.

use crate::keys::MeshKey;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// One peer, as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its WireGuard key.
    pub public_key: MeshKey,
    /// Inner addresses that belong to it: packets to them go to this peer, packets from it must
    /// come from them. No network may be given to two peers.
    pub allowed_ips: Vec<IpNet>,
    /// Where it is thought to be. Authenticated packets correct it; a later configuration with
    /// the *same* endpoint leaves what was learned alone.
    pub endpoint: Option<SocketAddr>,
    /// Seconds of silence on our side after which an empty packet is sent (keeps NAT open).
    pub keepalive: Option<u16>,
    /// Keep a session even without traffic, and go on trying for ever when it is lost.
    pub always_on: bool,
    /// A WireGuard peer of another make: it answers no probes, and is where its last authentic
    /// packet came from.
    pub plain: bool,
    /// A lighthouse: it tells where it sees this member, and may relay.
    pub relay: bool,
}

/// Why a list of peers was refused. Nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The same key twice.
    #[error("peer {0} is listed twice")]
    DuplicatePeer(MeshKey),
    /// One network, two peers.
    #[error("{net} is given to two peers, {first} and {second}; an address belongs to one")]
    DuplicateNetwork {
        /// The network.
        net: IpNet,
        /// Who has it.
        first: MeshKey,
        /// Who wants it too.
        second: MeshKey,
    },
    /// Our own key among the peers.
    #[error("peer {0} has this machine's own key")]
    OwnKey(MeshKey),
}

/// How to come from the peers that are to the peers that are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerUpdate {
    /// Peers to forget, with their sessions.
    pub remove: Vec<MeshKey>,
    /// New peers.
    pub add: Vec<PeerConfig>,
    /// Peers that stay, with their sessions, but differ in something.
    pub change: Vec<PeerChange>,
}

/// A peer that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerChange {
    /// Its wanted state.
    pub config: PeerConfig,
    /// The wanted endpoint differs from the one wanted before: take it, even over a learned one.
    pub take_endpoint: bool,
}

impl PeerUpdate {
    /// The difference from `current` to `wanted`; nothing is applied.
    ///
    /// # Errors
    /// [`ConfigError`] when `wanted` contradicts itself or holds `own`.
    pub fn plan(
        own: MeshKey,
        current: &BTreeMap<MeshKey, PeerConfig>,
        wanted: &[PeerConfig],
    ) -> Result<Self, ConfigError> {
        check(own, wanted)?;
        let keys: BTreeSet<MeshKey> = wanted.iter().map(|p| p.public_key).collect();
        let mut update = Self {
            remove: current
                .keys()
                .filter(|k| !keys.contains(k))
                .copied()
                .collect(),
            ..Self::default()
        };
        for config in wanted {
            match current.get(&config.public_key) {
                None => update.add.push(config.clone()),
                Some(old) if old == config => {}
                Some(old) => update.change.push(PeerChange {
                    config: config.clone(),
                    take_endpoint: config.endpoint.is_some() && config.endpoint != old.endpoint,
                }),
            }
        }
        Ok(update)
    }

    /// Nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty() && self.change.is_empty()
    }
}

fn check(own: MeshKey, wanted: &[PeerConfig]) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    let mut nets: BTreeMap<IpNet, MeshKey> = BTreeMap::new();
    for peer in wanted {
        let key = peer.public_key;
        if key == own {
            return Err(ConfigError::OwnKey(key));
        }
        if !seen.insert(key) {
            return Err(ConfigError::DuplicatePeer(key));
        }
        for net in &peer.allowed_ips {
            match nets.insert(net.trunc(), key) {
                Some(first) if first != key => {
                    return Err(ConfigError::DuplicateNetwork {
                        net: *net,
                        first,
                        second: key,
                    });
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(key: u8, net: u8, port: Option<u16>) -> PeerConfig {
        PeerConfig {
            public_key: MeshKey([key; 32]),
            allowed_ips: vec![IpNet::new([100, 64, 0, net].into(), 32).unwrap()],
            endpoint: port.map(|p| SocketAddr::from(([192, 0, 2, 1], p))),
            keepalive: None,
            always_on: false,
            plain: false,
            relay: false,
        }
    }

    fn table(peers: &[PeerConfig]) -> BTreeMap<MeshKey, PeerConfig> {
        peers.iter().map(|p| (p.public_key, p.clone())).collect()
    }

    const OWN: MeshKey = MeshKey([0; 32]);

    #[test]
    fn the_same_endpoint_again_does_not_undo_roaming() {
        let current = table(&[
            peer(1, 1, Some(7)),
            peer(2, 2, Some(7)),
            peer(3, 3, Some(7)),
        ]);
        let mut same = peer(1, 1, Some(7));
        same.always_on = true;
        let wanted = [same.clone(), peer(2, 2, Some(8)), peer(3, 3, None)];
        let update = PeerUpdate::plan(OWN, &current, &wanted).unwrap();
        assert_eq!(
            update
                .change
                .iter()
                .map(|c| c.take_endpoint)
                .collect::<Vec<_>>(),
            [false, true, false]
        );
        assert_eq!(update.change[0].config, same);
    }

    #[test]
    fn contradictions_are_named() {
        let none = BTreeMap::new();
        let twice = PeerUpdate::plan(OWN, &none, &[peer(1, 1, None), peer(1, 2, None)]);
        assert_eq!(twice, Err(ConfigError::DuplicatePeer(MeshKey([1; 32]))));
        let shared = PeerUpdate::plan(OWN, &none, &[peer(1, 1, None), peer(2, 1, None)]);
        assert!(matches!(shared, Err(ConfigError::DuplicateNetwork { .. })));
        let own = PeerUpdate::plan(OWN, &none, &[peer(0, 1, None)]);
        assert_eq!(own, Err(ConfigError::OwnKey(OWN)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn applying_the_plan_gives_what_was_wanted(
            old in proptest::collection::btree_map(1u8..12, proptest::option::of(1u16..4), 0..8),
            new in proptest::collection::btree_map(1u8..12, proptest::option::of(1u16..4), 0..8),
        ) {
            let make = |m: &BTreeMap<u8, Option<u16>>| -> Vec<PeerConfig> {
                m.iter().map(|(k, p)| peer(*k, *k, *p)).collect()
            };
            let mut state = table(&make(&old));
            let wanted = make(&new);
            let update = PeerUpdate::plan(OWN, &state, &wanted).unwrap();
            for key in &update.remove {
                prop_assert!(state.remove(key).is_some());
            }
            for config in &update.add {
                prop_assert!(state.insert(config.public_key, config.clone()).is_none());
            }
            for change in &update.change {
                prop_assert!(state.insert(change.config.public_key, change.config.clone()).is_some());
            }
            prop_assert_eq!(&state, &table(&wanted));
            prop_assert!(PeerUpdate::plan(OWN, &state, &wanted).unwrap().is_empty());
        }
    }
}
