//! Asks lighthouses for relay channels to peers that no direct path is known to, and for a stream
//! where UDP reaches no lighthouse.

use crate::node::Node;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use holdfast_client::LighthouseClient;
use holdfast_core::api::RelayRequest;
use holdfast_mesh::{Channel, MeshHandle, MeshKey};

/// Channels asked for at a time.
const AT_ONCE: usize = 16;

/// Runs as long as the mesh does; returns only on an error.
pub async fn run(node: &Node, mesh: &MeshHandle) -> anyhow::Error {
    let Some(mut wanted) = mesh.relay_wanted() else {
        return anyhow::anyhow!("somebody else asks for relay channels");
    };
    let mut asking = FuturesUnordered::new();
    loop {
        tokio::select! {
            peer = wanted.recv(), if asking.len() < AT_ONCE => match peer {
                Some(peer) => asking.push(ask(node, mesh, peer)),
                None => return anyhow::anyhow!("the mesh asks for no relay channels any more"),
            },
            Some(()) = asking.next() => {}
        }
    }
}

/// Keeps a stream to the lighthouse that answers calls, while UDP does not reach it. Runs for ever.
pub async fn stand_in(node: &Node, mesh: &MeshHandle) -> anyhow::Error {
    let mut current = node.lighthouse.subscribe();
    loop {
        let client = current.borrow_and_update().clone();
        let lighthouse = client.as_ref().and_then(|c| mesh_key(node, c));
        let keep = async {
            match client.zip(lighthouse) {
                Some((client, key)) => mesh.stand_in(key, || client.mesh_stream()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = keep => {}
            changed = current.changed() => if changed.is_err() {
                return anyhow::anyhow!("nobody tells of lighthouses any more");
            },
        }
    }
}

fn mesh_key(node: &Node, client: &LighthouseClient) -> Option<MeshKey> {
    let trusted = node.trusted().ok()?;
    let mut all = trusted.lighthouses.lighthouses.iter();
    Some(all.find(|l| l.key == client.key())?.mesh_key)
}

/// The mesh asks again when this fails.
async fn ask(node: &Node, mesh: &MeshHandle, peer: MeshKey) {
    let Some(client) = node.lighthouse.borrow().clone() else {
        return;
    };
    match client.relay(&RelayRequest { peer }).await {
        Ok(reply) => {
            let set = mesh.set_channel(peer, reply.lighthouse, Channel(reply.channel));
            tracing::debug!(%peer, set, "a relay channel");
        }
        Err(e) => tracing::debug!(%peer, "no relay channel: {e}"),
    }
}
