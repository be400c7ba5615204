//! What an operator should know of this node: one line a subject, replaced as it changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// By subject, and whom it is of: empty where there is one only.
type Lines = BTreeMap<(&'static str, String), String>;

/// The node's notes; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    lines: Arc<Mutex<Lines>>,
    changed: Arc<Notify>,
}

impl Notes {
    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the line of `subject`; true when it was another before.
    pub fn set(&self, subject: &'static str, text: impl Into<String>) -> bool {
        self.set_of(subject, "", text)
    }

    /// Takes the line of `subject` away.
    pub fn clear(&self, subject: &'static str) {
        self.clear_of(subject, "");
    }

    /// As [`set`](Self::set), of one of several: what is well with another takes it not away.
    pub fn set_of(&self, subject: &'static str, of: &str, text: impl Into<String>) -> bool {
        let text = text.into();
        let key = (subject, of.to_owned());
        let changed = self.lock().insert(key, text.clone()).as_ref() != Some(&text);
        if changed {
            tracing::warn!(subject, "{text}");
            self.changed.notify_one();
        }
        changed
    }

    /// Takes the line of `subject` for one of several away.
    pub fn clear_of(&self, subject: &'static str, of: &str) {
        if self.lock().remove(&(subject, of.to_owned())).is_some() {
            self.changed.notify_one();
        }
    }

    /// Takes away what is of one that is not among `named`.
    pub fn keep_of(&self, named: &[String]) {
        let mut lines = self.lock();
        let before = lines.len();
        lines.retain(|(_, of), _| of.is_empty() || named.contains(of));
        if lines.len() != before {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_well_with_one_takes_no_note_of_another_away() {
        let notes = Notes::default();
        assert!(notes.set_of("status", "a", "refuses"));
        notes.set("mesh", "down");
        notes.clear_of("status", "b");
        notes.clear("status");
        assert_eq!(notes.all(), ["down", "refuses"]);
        notes.keep_of(&["b".into()]);
        assert_eq!(notes.all(), ["down"]);
    }
}
