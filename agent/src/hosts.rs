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

/// Keeps both files as the state says, and hands the table to the resolver.
pub async fn keep(node: Arc<Node>, tables: watch::Sender<Option<Arc<Table>>>) {
    let mut changes = node.store.subscribe();
    loop {
        let doc = changes.borrow_and_update().clone();
        // Many signatures are checked: not on the event loop.
        let known = node.known.clone();
        let written = disk::blocking(move || {
            let table = Table::of(&doc, &known).map(Arc::new);
            let put_both = || {
                if let Some(a) = &doc.admission {
                    put("hostname", &format!("{}\n", a.name))?;
                }
                put("hosts", &hosts(table.as_deref()))
            };
            Ok((put_both(), table))
        });
        match written.await {
            Ok((files, table)) => {
                tables.send_replace(table);
                if let Err(e) = files {
                    tracing::warn!("{FOLDER}: {e}");
                }
            }
            Err(e) => tracing::warn!("names: {e:#}"),
        }
        if changes.changed().await.is_err() {
            return;
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
