//! Joins run beside each other, so that their writes share flushes; two that want the same thing
//! go one after the other.

use holdfast_core::cluster::MeshIndex;
use holdfast_core::grant::MemberRecord;
use holdfast_core::keys::{MeshKey, PublicKey};
use holdfast_core::names::NodeName;
use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// What only one member can have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fact {
    Key(PublicKey),
    Name(NodeName),
    Index(MeshIndex),
    Mesh(MeshKey),
}

/// All facts of a record.
pub fn facts(record: &MemberRecord) -> [Fact; 4] {
    [
        Fact::Key(record.signing_key),
        Fact::Name(record.name.clone()),
        Fact::Index(record.index),
        Fact::Mesh(record.mesh_key),
    ]
}

/// Facts that somebody works on.
#[derive(Debug, Default)]
pub struct Turns {
    taken: Mutex<HashSet<Fact>>,
    freed: Notify,
}

/// Gives its facts back when dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    facts: Vec<Fact>,
}

impl Turns {
    /// Waits until none of `facts` is taken, and takes them all: nobody waits while holding some.
    pub async fn take(&self, facts: impl Into<Vec<Fact>>) -> Turn<'_> {
        let facts = facts.into();
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            {
                let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
                if !facts.iter().any(|fact| taken.contains(fact)) {
                    taken.extend(facts.iter().cloned());
                    return Turn { turns: self, facts };
                }
            }
            freed.await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = self
            .turns
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for fact in &self.facts {
            taken.remove(fact);
        }
        drop(taken);
        self.turns.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn only_those_who_want_the_same_wait() {
        let turns = Turns::default();
        let fact = |n: u8| Fact::Mesh(MeshKey([n; 32]));
        let first = turns.take([fact(1), fact(2)]).await;
        let mut other = pin!(turns.take([fact(2), fact(3)]));
        assert!(other.as_mut().now_or_never().is_none());
        // The one that waits has taken nothing.
        let third = turns.take([fact(3)]).await;
        drop(first);
        assert!(other.as_mut().now_or_never().is_none());
        drop(third);
        assert!(other.as_mut().now_or_never().is_some());
    }
}
