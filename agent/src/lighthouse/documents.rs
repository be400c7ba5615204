//! Newer documents are fetched, checked and stored.

use crate::documents::{Trusted, merge};
use crate::node::Node;
use crate::{disk, releases};
use anyhow::Context as _;
use holdfast_client::LighthouseClient;
use holdfast_core::documents::{DocumentSet, Roots};

/// Whether a lighthouse holds something newer: operators, lighthouses, policy, release list.
fn newer(offered: [u64; 4], held: &Trusted, list: Option<u64>) -> bool {
    let [o, l, p] = held.generations();
    offered
        .iter()
        .zip([o, l, p, list.unwrap_or(0)])
        .any(|(offered, held)| *offered > held)
}

/// Fetches and stores what is newer than what is held.
///
/// # Errors
/// When it cannot be fetched or stored, or does not hold.
pub async fn bring_forward(
    node: &Node,
    client: &LighthouseClient,
    offered: [u64; 4],
) -> anyhow::Result<()> {
    let doc = node.store.get();
    let admission = doc.admission.as_ref().context("this node has not joined")?;
    let roots = Roots(admission.roots.clone());
    let held = node.trusted()?;
    let keys = releases::trusted(admission.cluster_id, &roots)?;
    let partition = node.partition("hf-slots");
    let list = match partition.clone() {
        Some(p) => disk::blocking(move || Ok(releases::read(&p, &keys).ok())).await?,
        None => None,
    };
    // Without a disk of its own a node has no list to bring forward.
    let list = if partition.is_some() {
        list.map(|l| l.generation)
    } else {
        Some(u64::MAX)
    };
    if newer(offered, &held, list) {
        let set = client.documents().await?;
        store(node, &set).await?;
    }
    Ok(())
}

/// Checks documents against what is held, and keeps what is newer.
///
/// # Errors
/// When they cannot be stored, or do not hold.
pub async fn store(node: &Node, set: &DocumentSet) -> anyhow::Result<()> {
    let doc = node.store.get();
    let admission = doc.admission.as_ref().context("this node has not joined")?;
    let roots = Roots(admission.roots.clone());
    let keys = releases::trusted(admission.cluster_id, &roots)?;
    let partition = node.partition("hf-slots");
    let mut merged = merge(doc.documents.as_ref(), set, &roots, admission.cluster_id)?;
    for why in &merged.refused {
        tracing::warn!("a document of the lighthouse is refused: {why}");
    }
    let sound = releases::open(&keys, &set.releases);
    if let (Err(_), Some(held)) = (&sound, &doc.documents) {
        merged.set.releases.clone_from(&held.releases);
    }
    let list = merged.set.releases.clone();
    // First what evicts: a bad list must not stand in its way.
    if doc.documents.as_ref() != Some(&merged.set) {
        tracing::info!(generations = ?merged.trusted.generations(), "newer documents");
        node.store
            .update(|d| d.documents = Some(merged.set))
            .await?;
    }
    sound?;
    if let Some(partition) = partition
        && disk::blocking(move || releases::bring_forward(&partition, &keys, &list)).await?
    {
        tracing::info!("a newer release list is stored");
    }
    Ok(())
}
