//! The standing connection: operators reach the node over it while the mesh is down.

use super::Post;
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

/// Keeps one open to a lighthouse, for ever.
pub async fn run(node: Arc<Node>, post: Arc<Post>) {
    let mut pauses = Backoff::secs(1, 60);
    let slots = Arc::new(Semaphore::new(STREAMS));
    let client = &post.client;
    loop {
        // Before it knows this node it lets it do nothing.
        post.until_it_answers().await;
        match client.standing().await {
            Ok(mut standing) => {
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
                            break;
                        }
                    }
                }
            }
            Err(e) => tracing::debug!("no standing connection: {e}"),
        }
        tokio::time::sleep(pauses.pause()).await;
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
