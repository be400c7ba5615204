//! `/etc/hostname` and `/etc/hosts` (links into `/run/holdfast`): the node's own name, and
//! `NODE.CLUSTER.internal` of every member (decision 15), from the same table as the resolver's.

use crate::disk;
use crate::names::Table;
use crate::node::Node;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

const FOLDER: &str = "/run/holdfast";

/// The text of `hosts`.
fn hosts(table: Option<&Table>) -> String {
    let local = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n";
    table.map_or_else(|| local.into(), |t| local.to_owned() + &t.hosts())
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

/// Keeps both files as the state and the table say.
pub async fn keep(node: Arc<Node>, mut tables: watch::Receiver<Option<Arc<Table>>>) {
    // Not before there is one: what is there from before a restart is better than nothing.
    while tables.changed().await.is_ok() {
        let table = tables.borrow_and_update().clone();
        let name = node.store.get().admission.as_ref().map(|a| a.name.clone());
        let written = disk::blocking(move || {
            if let Some(name) = &name {
                put("hostname", &format!("{name}\n"))?;
            }
            Ok(put("hosts", &hosts(table.as_deref()))?)
        });
        if let Err(e) = written.await {
            tracing::warn!("{FOLDER}: {e:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_join_there_is_only_localhost() {
        assert_eq!(hosts(None).lines().count(), 2);
        let table = Table::of(&crate::lighthouse::tests::doc(), &Default::default());
        assert!(hosts(table.as_ref()).ends_with(" n1.demo.internal n1\n"));
    }
}
