//! Members whose signatures were checked once. Documents change often, signatures never do.

use holdfast_core::grant::{Member, MemberError, OpenedMember, open};
use holdfast_core::keys::Digest;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Members by the digest of all their bytes, signatures included.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<[u8; 32], Arc<OpenedMember>>>);

/// Of the bytes; none: it cannot be written as JSON, which no member that was read is.
fn digest(member: &Member) -> Option<[u8; 32]> {
    Some(Digest::of(&serde_json::to_vec(member).ok()?).0)
}

impl Known {
    fn hold(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<OpenedMember>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Record and grant of `member`, if their signatures fit.
    ///
    /// # Errors
    /// [`MemberError::Open`].
    pub fn open(&self, member: &Member) -> Result<Arc<OpenedMember>, MemberError> {
        let digest = digest(member);
        if let Some(known) = digest.and_then(|d| self.hold().get(&d).cloned()) {
            return Ok(known);
        }
        let opened = Arc::new(open(member)?);
        if let Some(digest) = digest {
            self.hold().insert(digest, opened.clone());
        }
        Ok(opened)
    }

    /// Forgets all but `members`.
    pub fn keep_only<'a>(&self, members: impl Iterator<Item = &'a Member>) {
        let wanted: HashSet<_> = members.filter_map(digest).collect();
        self.hold().retain(|digest, _| wanted.contains(digest));
    }
}
