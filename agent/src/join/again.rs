//! Seeds beside the one that counts: those that a joined node finds, and those that differ.

use super::wants_rejoin;
use crate::console::say;
use crate::forever::forever;
use crate::node::Node;
use crate::seed::choose::{Good, Source};
use holdfast_core::ipc::InitRequest;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long after the agent's start a drive may appear.
const DRIVES: Duration = Duration::from_secs(60);
/// Names the grant of a seed on a drive for which the agent was started anew in this boot.
const SEEN: &str = "/run/holdfast/rejoin";

/// The seed that makes a joined node join anew: only one that says so, with a grant that this node
/// has not used (decision 13). A drive with one is waited for beside the mesh; then the agent starts
/// anew to follow it.
pub async fn look(node: &Arc<Node>) -> Option<Good> {
    let doc = node.store.get();
    if doc.admission.as_ref().is_none_or(|a| !a.seed_scrubbed) {
        return None;
    }
    let seen = std::fs::read_to_string(SEEN).ok();
    let (good, ignored) = node
        .places
        .look_again(seen.is_some(), |s| wants_rejoin(s, &doc))
        .await;
    if good.is_none() {
        // The others cannot be overwritten: that they are still there is no news.
        if ignored.contains(&Source::Volume) {
            let source = Source::Volume;
            node.notes.set("seed", format!("{source} is ignored: this node has joined; a seed with rejoin = true and a new grant would count"));
        }
        forever("drives", watch_drives(node.clone(), seen));
    }
    good
}

async fn watch_drives(node: Arc<Node>, seen: Option<String>) {
    if node.places.wait_for_drive(DRIVES).await.is_none() {
        return;
    }
    let doc = node.store.get();
    let (good, _) = node
        .places
        .look_again(true, |s| wants_rejoin(s, &doc))
        .await;
    let Some(good) = good.filter(|g| seen.as_deref() != Some(g.seed.grant.as_str())) else {
        return;
    };
    if let Err(e) = std::fs::write(Path::new(SEEN), good.seed.grant.as_str()) {
        tracing::warn!("{SEEN}: {e}");
        return;
    }
    say(&format!(
        "{} makes this node join anew: the agent starts anew",
        good.source
    ));
    if let Err(e) = node.init.ask(InitRequest::RestartAgent).await {
        tracing::warn!("{e:#}");
    }
}

/// Compares the seed that is used with one on a drive, which may appear late: nobody waits for it.
pub fn compare_with_drive(node: &Arc<Node>, good: &Good) {
    if good.source == Source::Cidata {
        return;
    }
    let (node, source) = (node.clone(), good.source);
    let differs = good.comparison();
    tokio::spawn(async move {
        if let Some(held) = node.places.wait_for_drive(DRIVES).await
            && differs(&held)
        {
            told_to_differ(&node, "seed on a drive", source, &[Source::Cidata]);
        }
    });
}

/// Says that other places hold other seeds, once; `subject` is the note's.
pub fn told_to_differ(node: &Node, subject: &'static str, used: Source, others: &[Source]) {
    let others: Vec<String> = others.iter().map(ToString::to_string).collect();
    let text = format!(
        "{used} is used; another seed is ignored: {}",
        others.join(", ")
    );
    if node.notes.set(subject, text.clone()) {
        say(&text);
    }
}
