//! The newest table, for whoever asks.

use super::Table;
use crate::disk;
use crate::node::Node;
use std::sync::Arc;
use tokio::sync::watch;

/// Makes a table after each change of the state, for ever.
pub async fn keep(node: Arc<Node>, tables: watch::Sender<Option<Arc<Table>>>) {
    let mut changes = node.store.subscribe();
    loop {
        let doc = changes.borrow_and_update().clone();
        // Many signatures are checked: not on the event loop.
        let known = node.known.clone();
        match disk::blocking(move || Ok(Table::of(&doc, &known).map(Arc::new))).await {
            Ok(table) => {
                tables.send_replace(table);
            }
            Err(e) => tracing::warn!("names: {e:#}"),
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
