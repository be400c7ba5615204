//! A lighthouse that was lost and restored: it has new keys and knows no member. The node takes
//! its key when the roots named it, and shows it the record that it joined with.

use super::documents;
use crate::console;
use crate::node::Node;
use anyhow::Context as _;
use holdfast_client::{ClientError, LighthouseClient, Trust, successor};
use holdfast_core::api::ApiErrorKind;
use holdfast_core::documents::Roots;

/// Whether `error` led to a lighthouse in the place of the one that was asked; its documents are
/// stored then.
///
/// # Errors
/// When whoever answers there is no lighthouse of this cluster.
pub async fn follow(node: &Node, error: &ClientError) -> anyhow::Result<bool> {
    let doc = node.store.get();
    let admission = doc.admission.as_ref().context("this node has not joined")?;
    let held = node.trusted();
    let generation = held.map_or(0, |t| t.lighthouses.generation);
    let trust = Trust {
        roots: Roots(admission.roots.clone()),
        cluster: admission.cluster_id,
        generation: doc.document_floors[1].max(generation),
    };
    let Some(set) = successor(error, &trust).await? else {
        return Ok(false);
    };
    documents::store(node, &set).await?;
    console::say("a lighthouse has new keys, which a root signed");
    Ok(true)
}

/// After a refusal: whether the lighthouse knows this node again.
pub async fn introduce(node: &Node, client: &LighthouseClient, error: &ClientError) -> bool {
    // What it says of keys it does not know; an evicted node is told otherwise.
    if error.kind() != Some(ApiErrorKind::Denied) {
        return false;
    }
    let doc = node.store.get();
    let Some(admission) = &doc.admission else {
        return false;
    };
    match client.join(admission.member.clone()).await {
        Ok(_) => {
            tracing::info!("a lighthouse had forgotten this node and knows it again");
            true
        }
        Err(e) => {
            tracing::debug!("the lighthouse does not take this node back: {e}");
            false
        }
    }
}
