//! The seed's end: `hf-seed` is made anew after each join.

use super::tell;
use crate::backoff::Backoff;
use crate::console::say;
use crate::node::Node;
use crate::seed::volume;
use std::sync::Arc;

/// Goes on until it is done.
pub async fn later(node: Arc<Node>) {
    let mut pauses = Backoff::secs(10, 3600);
    loop {
        tokio::time::sleep(pauses.pause()).await;
        if once(&node).await {
            return;
        }
    }
}

/// Makes `hf-seed` anew, once after each join; true when that is done.
pub async fn once(node: &Node) -> bool {
    let doc = node.store.get();
    let Some(admission) = &doc.admission else {
        return false;
    };
    if admission.seed_scrubbed {
        return true;
    }
    let made = match node.partition("hf-seed") {
        Some(partition) => {
            volume::with(volume::PATIENCE, move || volume::format_anew(&partition)).await
        }
        None => Ok(()),
    };
    let stored = match made {
        Ok(()) => {
            node.store
                .update(|d| {
                    if let Some(a) = &mut d.admission {
                        a.seed_scrubbed = true;
                    }
                })
                .await
        }
        Err(e) => Err(e),
    };
    if let Err(e) = stored {
        let text = format!("the seed may still be readable on hf-seed: {e:#}; tried again");
        if node.notes.set("scrub", text.clone()) {
            say(&format!("join: {text}"));
        }
        return false;
    }
    node.notes.clear("scrub");
    say("join: seed scrubbed");
    node.reporter.forget().await;
    let message = format!("joined {} as {}", admission.cluster, admission.name);
    tell(
        node,
        "joined",
        None,
        message,
        "Nothing: the seed was removed from this disk",
    )
    .await;
    true
}
