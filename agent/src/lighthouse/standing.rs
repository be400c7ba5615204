//! The standing connection: operators reach the node over it while the mesh is down.

use crate::backoff::Backoff;
use crate::control;
use crate::node::Node;
use holdfast_client::{LighthouseClient, StandingEvent};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Streams at a time; what the lighthouse asks for beyond them is not opened.
const STREAMS: usize = 64;

/// A name that does not resolve holds a thread, of which the agent has few: one at a time.
static OPENING: Semaphore = Semaphore::const_new(1);

/// Keeps one open, for ever: to the lighthouse in use, anew when that is another one or this machine
/// moved.
pub async fn run(node: Arc<Node>) {
    let mut current = node.lighthouse.subscribe();
    let mut pauses = Backoff::secs(1, 60);
    let slots = Arc::new(Semaphore::new(STREAMS));
    loop {
        let client = current.borrow_and_update().clone();
        let keep = async {
            match client {
                Some(client) => {
                    stay(&node, &client, &slots, &mut pauses).await;
                    tokio::time::sleep(pauses.pause()).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = keep => {}
            Ok(()) = current.changed() => {}
        }
    }
}

/// Opens one and keeps it until it ends.
async fn stay(
    node: &Arc<Node>,
    client: &Arc<LighthouseClient>,
    slots: &Arc<Semaphore>,
    pauses: &mut Backoff,
) {
    let mut standing = match client.standing().await {
        Ok(standing) => standing,
        Err(e) => {
            tracing::debug!("no standing connection: {e}");
            return;
        }
    };
    pauses.reset();
    tracing::info!("standing connection open");
    loop {
        match standing.next().await {
            Ok(StandingEvent::Open(id)) => {
                let Ok(permit) = slots.clone().try_acquire_owned() else {
                    tracing::debug!("no place for another control stream");
                    continue;
                };
                let opened = answer(node.clone(), client.clone(), id);
                tokio::spawn(async move {
                    opened.await;
                    drop(permit);
                });
            }
            Err(e) => {
                tracing::info!("standing connection ended: {e}");
                return;
            }
        }
    }
}

async fn answer(node: Arc<Node>, client: Arc<LighthouseClient>, id: String) {
    let opened = {
        let _one = OPENING.acquire().await;
        client.splice(&id).await
    };
    match opened {
        Ok(stream) => control::serve(node, stream, "standing connection").await,
        Err(e) => tracing::warn!("a stream that was asked for cannot be opened: {e}"),
    }
}
