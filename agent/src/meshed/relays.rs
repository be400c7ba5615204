//! Asks lighthouses for relay channels to peers that no direct path is known to, and for a stream
//! to each that UDP does not reach.

use crate::lighthouse::Post;
use crate::node::Node;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use holdfast_core::api::RelayRequest;
use holdfast_mesh::{Channel, MeshHandle, MeshKey};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Channels asked for at a time.
const AT_ONCE: usize = 16;
/// A lighthouse that does not answer for so long does not keep the next one from being asked.
const PATIENCE: Duration = Duration::from_secs(4);

/// Runs as long as the mesh does; returns only on an error.
pub async fn run(node: &Node, mesh: &MeshHandle) -> anyhow::Error {
    let Some(mut wanted) = mesh.relay_wanted() else {
        return anyhow::anyhow!("somebody else asks for relay channels");
    };
    let mut asking = FuturesUnordered::new();
    let mut asked = BTreeMap::<MeshKey, usize>::new();
    loop {
        tokio::select! {
            peer = wanted.recv(), if asking.len() < AT_ONCE => match peer {
                Some(peer) => {
                    let before = asked.entry(peer).or_default();
                    asking.push(ask(node, mesh, peer, *before));
                    *before = before.wrapping_add(1);
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
