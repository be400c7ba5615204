//! Asks lighthouses for relay channels to peers that no direct path is known to, and for a stream
//! to each that UDP does not reach.

use crate::lighthouse::Post;
use crate::node::Node;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use holdfast_core::api::RelayRequest;
use holdfast_mesh::{Channel, MeshHandle, MeshKey};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Channels asked for at a time.
const AT_ONCE: usize = 16;
/// A lighthouse that does not answer for so long does not keep the next one from being asked.
const PATIENCE: Duration = Duration::from_secs(4);

/// Peers whose questions are counted; of more, those asked for longest ago begin at the first
/// lighthouse again.
const COUNTED: usize = 1024;

/// How often a channel to each peer was asked for, the latest last.
#[derive(Default)]
struct Turns(VecDeque<(MeshKey, usize)>);

impl Turns {
    /// How often before.
    fn next(&mut self, peer: MeshKey) -> usize {
        let at = self.0.iter().position(|(key, _)| *key == peer);
        let before = at.and_then(|at| self.0.remove(at)).map_or(0, |(_, n)| n);
        self.0.push_back((peer, before.wrapping_add(1)));
        if self.0.len() > COUNTED {
            self.0.pop_front();
        }
        before
    }
}

/// Runs as long as the mesh does; returns only on an error.
pub async fn run(node: &Node, mesh: &MeshHandle) -> anyhow::Error {
    let Some(mut wanted) = mesh.relay_wanted() else {
        return anyhow::anyhow!("somebody else asks for relay channels");
    };
    let mut asking = FuturesUnordered::new();
    let mut turns = Turns::default();
    loop {
        tokio::select! {
            peer = wanted.recv(), if asking.len() < AT_ONCE => match peer {
                Some(peer) => {
                    let before = turns.next(peer);
                    asking.push(ask(node, mesh, peer, before));
                }
                None => return anyhow::anyhow!("the mesh asks for no relay channels any more"),
            },
            Some(()) = asking.next() => {}
        }
    }
}

/// Keeps a stream to each lighthouse of the document, while UDP does not reach it: what comes for
/// this member may come through any of them. Returns only on an error.
pub async fn stand_in(node: &Node, mesh: &MeshHandle) -> anyhow::Error {
    let mut posts = node.posts.subscribe();
    let mut kept: Vec<Arc<Post>> = vec![];
    let mut streams = FuturesUnordered::new();
    loop {
        for post in posts.borrow_and_update().iter() {
            if !kept.iter().any(|k| Arc::ptr_eq(k, post)) {
                kept.push(post.clone());
                streams.push(stand_in_of(mesh, post.clone()));
            }
        }
        kept.retain(|post| !post.is_gone());
        tokio::select! {
            Some(()) = streams.next() => {}
            changed = posts.changed() => if changed.is_err() {
                return anyhow::anyhow!("nobody tells of lighthouses any more");
            },
        }
    }
}

/// Ends when the lighthouse is given up.
async fn stand_in_of(mesh: &MeshHandle, post: Arc<Post>) {
    // To one that the seed alone names there is no session.
    let Some((_, key)) = &post.place.named else {
        return;
    };
    let keep = async {
        post.until_it_answers().await;
        mesh.stand_in(*key, || post.client.mesh_stream()).await;
    };
    tokio::select! {
        () = keep => {}
        () = post.gone() => {}
    }
}

/// The mesh asks again when this fails, or when what it got leads nowhere: then the next
/// lighthouse begins, since the peer may have lost this one.
async fn ask(node: &Node, mesh: &MeshHandle, peer: MeshKey, before: usize) {
    let mut all = node.posts.answering();
    if !all.is_empty() {
        let turn = before % all.len();
        all.rotate_left(turn);
    }
    for post in all {
        let request = RelayRequest { peer };
        let Ok(answer) = timeout(PATIENCE, post.client.relay(&request)).await else {
            tracing::debug!(%peer, "no answer about a relay channel");
            continue;
        };
        match answer {
            Ok(reply) => {
                let set = mesh.set_channel(peer, reply.lighthouse, Channel(reply.channel));
                tracing::debug!(%peer, set, "a relay channel");
                if set {
                    return;
                }
            }
            Err(e) => tracing::debug!(%peer, "no relay channel: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_counted_for_each_peer_and_of_not_too_many() {
        let key = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            MeshKey(bytes)
        };
        let mut turns = Turns::default();
        let asked = [1, 2, 1, 1, 2].map(|n| turns.next(key(n)));
        assert_eq!(asked, [0, 0, 1, 2, 1]);
        for n in 0..3 * COUNTED {
            // One that is asked for all the time is never forgotten.
            assert_eq!(turns.next(key(1)), 3 + n);
            turns.next(key(100 + n));
        }
        assert_eq!(turns.0.len(), COUNTED);
        assert_eq!(turns.next(key(2)), 0);
    }
}
