//! Where peers last answered, kept on the disk: without any lighthouse a node that was booted anew
//! seeks them there, too. What lighthouses list is a member's outer address; on one LAN, or over a
//! hole that was punched, that may be no way.

use crate::node::Node;
use holdfast_core::keys::MeshKey;
use holdfast_core::state::StateDoc;
use holdfast_mesh::{MeshHandle, PeerStatus};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(30);
/// Pause after a write: each is one to the disk.
const PAUSE: Duration = Duration::from_secs(600);
/// Writes before the first pause. Peers are met one after the other when a site gets its power
/// back, and it may lose it again soon, the way to a lighthouse with it.
const EARLY: u32 = 8;
/// More are not kept.
const MAX: usize = 512;

type Places = BTreeMap<MeshKey, SocketAddr>;

/// Tells the mesh what was kept.
pub fn recall(doc: &StateDoc, mesh: &MeshHandle) {
    for (peer, at) in &doc.good_endpoints {
        mesh.suggest(*peer, *at);
    }
}

/// `held` with what is known now of today's peers; none: nothing is new.
fn news(held: &Places, status: &[PeerStatus]) -> Option<Places> {
    let answered = |s: &PeerStatus| {
        let at = s.way.filter(|_| s.confirmed)?.endpoint()?;
        Some((s.public_key, at))
    };
    let now: Places = status.iter().filter_map(answered).collect();
    let still = |key: &MeshKey| status.iter().any(|s| s.public_key == *key);
    let mut places: Places = now;
    for (key, at) in held.iter().filter(|(key, _)| still(key)) {
        if places.len() < MAX {
            places.entry(*key).or_insert(*at);
        }
    }
    while places.len() > MAX {
        places.pop_last();
    }
    (places != *held).then_some(places)
}

/// Keeps them, for ever.
pub async fn keep(node: &Node, mesh: &MeshHandle) -> anyhow::Error {
    let mut writes = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let held = &node.store.get().good_endpoints;
        let Some(places) = news(held, &mesh.status()) else {
            continue;
        };
        let shown: Vec<_> = places.values().map(SocketAddr::to_string).collect();
        match node.store.update(|d| d.good_endpoints = places).await {
            Ok(()) => tracing::info!("kept where peers answer: {}", shown.join(", ")),
            Err(e) => tracing::warn!("where peers answered is not kept: {e:#}"),
        }
        writes += 1;
        if writes >= EARLY {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_mesh::Way;

    fn peer(n: u8, at: Option<&str>, confirmed: bool) -> PeerStatus {
        PeerStatus {
            public_key: MeshKey([n; 32]),
            way: at.map(|a| Way::Direct(a.parse().unwrap())),
            confirmed,
            rtt: None,
            mtu: None,
            narrow: false,
            loss: None,
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }

    #[test]
    fn places_that_answered_are_kept_as_long_as_the_peer_is_one() {
        let [lan, other]: [SocketAddr; 2] =
            ["192.168.1.5:1", "192.0.2.1:1"].map(|a| a.parse().unwrap());
        let first = [
            peer(1, Some("192.168.1.5:1"), true),
            peer(2, Some("192.0.2.1:1"), false),
            peer(3, Some("[100::1]:1"), true),
        ];
        let held = news(&Places::new(), &first).unwrap();
        assert_eq!(held, Places::from([(MeshKey([1; 32]), lan)]));
        assert_eq!(news(&held, &first), None);
        // Silent now: the last place stays; gone: it goes.
        assert_eq!(news(&held, &[peer(1, None, false)]), None);
        let moved = news(&held, &[peer(1, Some("192.0.2.1:1"), true)]).unwrap();
        assert_eq!(moved.values().copied().collect::<Vec<_>>(), [other]);
        assert_eq!(news(&held, &[peer(2, None, false)]), Some(Places::new()));
    }
}
