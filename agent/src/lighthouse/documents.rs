//! Newer documents are fetched, checked and stored.

use crate::documents::merge;
use crate::node::Node;
use crate::releases::Offered;
use crate::{disk, releases};
use anyhow::Context as _;
use holdfast_client::LighthouseClient;
use holdfast_core::documents::{DocumentSet, Roots};
use tokio::sync::Mutex;

/// Whether a lighthouse holds something newer: operators, lighthouses, policy, release list.
fn newer(offered: [u64; 4], [o, l, p]: [u64; 3], list: Option<u64>) -> bool {
    offered
        .iter()
        .zip([o, l, p, list.unwrap_or(0)])
        .any(|(offered, held)| *offered > held)
}

/// The generations of what is held; nothing where the state holds no documents, because a later
/// version wrote them in another form: they are fetched anew then.
async fn held(node: &Node) -> [u64; 3] {
    let Ok(trusted) = node.trusted() else {
        return [0; 3];
    };
    let held = trusted.generations();
    if node.store.get().document_floors != held {
        // From before there were floors: no write of its own.
        node.store.note(|d| d.document_floors = held).await;
    }
    held
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
    let held = held(node).await;
    let keys = releases::trusted(admission.cluster_id, &roots)?;
    let partition = node.partition("hf-slots");
    let carried = doc.documents.as_ref().map(|set| set.releases.clone());
    // Without a disk of its own a node has no list to bring forward.
    let list = match partition {
        Some(p) => {
            disk::blocking(move || {
                let stored = releases::read(&p, &keys).ok().map(|l| l.generation);
                // One that waits is not fetched again.
                let carried = carried.and_then(|list| releases::open(&keys, &list).ok());
                Ok(stored.max(carried.map(|(list, _)| list.generation)))
            })
            .await?
        }
        None => Some(u64::MAX),
    };
    if newer(offered, held, list) {
        let set = client.documents().await?;
        return store(node, &set).await;
    }
    let _one = STORING.lock().await;
    follow(node).await;
    Ok(())
}

/// One at a time: what two lighthouses tell at once must not take each other's news back.
static STORING: Mutex<()> = Mutex::const_new(());

/// Checks documents against what is held, and keeps what is newer.
///
/// # Errors
/// When they cannot be stored, or do not hold.
pub async fn store(node: &Node, set: &DocumentSet) -> anyhow::Result<()> {
    let _one = STORING.lock().await;
    let doc = node.store.get();
    let admission = doc.admission.as_ref().context("this node has not joined")?;
    let roots = Roots(admission.roots.clone());
    let keys = releases::trusted(admission.cluster_id, &roots)?;
    let merged = merge(doc.documents.as_ref(), set, &roots, admission.cluster_id)?;
    let mut merged = merged.not_below(doc.document_floors)?;
    for why in &merged.refused {
        tracing::warn!("a document of the lighthouse is refused: {why}");
    }
    let sound = releases::open(&keys, &set.releases);
    if let (Err(_), Some(held)) = (&sound, &doc.documents) {
        merged.set.releases.clone_from(&held.releases);
    }
    // First what evicts: a bad list must not stand in its way.
    if doc.documents.as_ref() != Some(&merged.set) {
        tracing::info!(generations = ?merged.trusted.generations(), "newer documents");
        node.store
            .update(|d| {
                d.document_floors = merged.trusted.generations();
                d.documents = Some(merged.set);
            })
            .await?;
    }
    sound?;
    follow(node).await;
    Ok(())
}

/// The loader's release list follows the newest one, as soon as all that lies on the disk counts
/// under that. A disk that refuses stands in the way of no document: a note says so. With [`STORING`].
async fn follow(node: &Node) {
    if let Err(e) = followed(node).await {
        node.notes
            .set("releases", format!("the release list is not stored: {e:#}"));
    }
}

async fn followed(node: &Node) -> anyhow::Result<()> {
    let doc = node.store.get();
    let (Some(admission), Some(set), Some(slots)) =
        (&doc.admission, &doc.documents, node.partition("hf-slots"))
    else {
        return Ok(());
    };
    let keys = releases::trusted(admission.cluster_id, &Roots(admission.roots.clone()))?;
    let found = |name| Some((name, node.partition(name)?));
    let partitions: Vec<_> = releases::HEADERS.into_iter().filter_map(found).collect();
    let list = set.releases.clone();
    let offered = disk::blocking(move || {
        // Nothing that a root signed: there is nothing to follow.
        match releases::open(&keys, &list) {
            Ok(_) => releases::bring_forward(&slots, &keys, &list, &partitions).map(Some),
            Err(_) => Ok(None),
        }
    });
    match offered.await? {
        Some(Offered::Waits {
            generation,
            partition,
        }) => {
            let text = format!(
                "release list {generation} leaves out the key that signed {partition}: the loader \
                 goes on with the list before, until that system is replaced"
            );
            node.notes.set("releases", text);
        }
        Some(Offered::Stored) => {
            tracing::info!("a newer release list is stored");
            node.notes.clear("releases");
        }
        _ => node.notes.clear("releases"),
    }
    Ok(())
}
