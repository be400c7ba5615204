//! What an operator should know of this node: one line a subject, replaced as it changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// The node's notes; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    lines: Arc<Mutex<BTreeMap<&'static str, String>>>,
    changed: Arc<Notify>,
}

impl Notes {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the line of `subject`; true when it was another before.
    pub fn set(&self, subject: &'static str, text: impl Into<String>) -> bool {
        let text = text.into();
        let changed = self.lock().insert(subject, text.clone()).as_ref() != Some(&text);
        if changed {
            tracing::warn!(subject, "{text}");
            self.changed.notify_one();
        }
        changed
    }

    /// Takes the line of `subject` away.
    pub fn clear(&self, subject: &'static str) {
        if self.lock().remove(subject).is_some() {
            self.changed.notify_one();
        }
    }

    /// All lines.
    pub fn all(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    /// Returns when a line changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
