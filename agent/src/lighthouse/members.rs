//! The long poll: members and their endpoints, documents, the time.

use super::{clients, documents};
use crate::backoff::Backoff;
use crate::join::cached;
use crate::node::Node;
use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::api::{ApiErrorKind, MemberList};
use std::sync::Arc;
use std::time::Duration;

/// How long the lighthouse may hold a request; also how often the clock is compared at least.
const WAIT: Duration = Duration::from_secs(50);

/// Asks one lighthouse after the other, for ever.
pub async fn run(node: Arc<Node>) {
    let mut pauses = Backoff::secs(1, 60);
    loop {
        match clients(&node.store.get()) {
            Ok(all) => {
                for client in all {
                    stay(&node, client, &mut pauses).await;
                }
            }
            Err(e) => {
                node.notes
                    .set("lighthouse", format!("no lighthouse can be asked: {e:#}"));
            }
        }
        tokio::time::sleep(pauses.pause()).await;
    }
}

/// Stays with one lighthouse until it fails.
async fn stay(node: &Node, client: Arc<LighthouseClient>, pauses: &mut Backoff) {
    // Zero: the first answer comes at once.
    let mut revision = 0;
    loop {
        let wait = if revision == 0 { Duration::ZERO } else { WAIT };
        let list = match client.members(revision, wait).await {
            Ok(list) => list,
            Err(e) => {
                failed(node, &e);
                return;
            }
        };
        pauses.reset();
        revision = list.revision;
        node.notes.clear("lighthouse");
        node.notes.clear("membership");
        node.lighthouse.send_if_modified(|current| {
            let same = current.as_ref().is_some_and(|c| Arc::ptr_eq(c, &client));
            *current = Some(client.clone());
            !same
        });
        if let Err(e) = take(node, &client, list).await {
            node.notes.set(
                "documents",
                format!("the lighthouse's news cannot be taken: {e:#}"),
            );
        } else {
            node.notes.clear("documents");
        }
    }
}

fn failed(node: &Node, error: &ClientError) {
    match error.kind() {
        Some(ApiErrorKind::Evicted) => {
            node.notes
                .set("membership", format!("this node is evicted: {error}"));
        }
        Some(ApiErrorKind::Denied | ApiErrorKind::NotFound) => {
            node.notes.set(
                "membership",
                format!("the lighthouse does not know this node: {error}"),
            );
        }
        _ => {}
    }
    if node.notes.set("lighthouse", error.to_string()) {
        tracing::warn!("members: {error}");
    }
}

async fn take(node: &Node, client: &LighthouseClient, list: MemberList) -> anyhow::Result<()> {
    node.clock.vouch(list.time).await?;
    let doc = node.store.get();
    let fresh = cached(&list);
    let same = doc.members.len() == fresh.len()
        && doc
            .members
            .iter()
            .zip(&fresh)
            .all(|(a, b)| a.member == b.member && a.endpoint == b.endpoint);
    // An empty list from a lighthouse that lost its store must not take the peers away.
    if !same && !fresh.is_empty() {
        node.store.update(|d| d.members = fresh).await?;
    }
    documents::bring_forward(node, client, list.generations).await
}
