//! `/etc/hostname` and `/etc/hosts` (links into `/run/holdfast`): the node's own name, and
//! `NODE.CLUSTER.internal` of every member (decision 15).

use crate::disk;
use crate::node::{self, Node};
use holdfast_core::grant::verify;
use holdfast_core::state::StateDoc;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

const FOLDER: &str = "/run/holdfast";

/// The text of `hosts`.
pub fn hosts(doc: &StateDoc) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
    let (Some(admission), Ok(trusted)) = (&doc.admission, node::trusted(doc)) else {
        return text;
    };
    let plan = node::plan(admission);
    let mut names: Vec<(String, _)> = vec![(admission.name.to_string(), admission.index)];
    for member in &doc.members {
        if let Ok(v) = verify(
            &member.member,
            admission.cluster_id,
            &trusted.operators,
            &trusted.policy,
        ) && v.record.index != admission.index
        {
            names.push((v.record.name.to_string(), v.record.index));
        }
    }
    for (name, index) in names {
        let long = format!("{name}.{}.internal", admission.cluster);
        let _ = writeln!(text, "{} {long} {name}", plan.address4(index));
        let _ = writeln!(text, "{} {long} {name}", plan.address6(index));
    }
    text
}

fn put(name: &str, text: &str) -> std::io::Result<()> {
    let (path, fresh) = (
        Path::new(FOLDER).join(name),
        Path::new(FOLDER).join(format!("{name}.new")),
    );
    if std::fs::read_to_string(&path).is_ok_and(|t| t == text) {
        return Ok(());
    }
    std::fs::write(&fresh, text)?;
    std::fs::rename(fresh, path)
}

/// Keeps both files as the state says.
pub async fn keep(node: Arc<Node>) {
    let mut changes = node.store.subscribe();
    loop {
        let doc = changes.borrow_and_update().clone();
        // Many signatures are checked: not on the event loop.
        let written = disk::blocking(move || {
            if let Some(a) = &doc.admission {
                put("hostname", &format!("{}\n", a.name))?;
            }
            Ok(put("hosts", &hosts(&doc))?)
        });
        if let Err(e) = written.await {
            tracing::warn!("{FOLDER}: {e:#}");
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn before_the_join_there_is_only_localhost() {
        assert_eq!(super::hosts(&Default::default()).lines().count(), 2);
    }
}
