//! What the lighthouse keeps, behind the smallest interface that etcd has too: single keys,
//! compare-and-swap. Nothing relies on two keys changing together.

mod embedded;

pub use embedded::Embedded;

use futures_util::future::BoxFuture;
use std::path::PathBuf;

/// A value and the version that a change must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes.
    pub value: Vec<u8>,
    /// Grows with every change of any key; never used twice.
    pub version: u64,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cas {
    /// Done and durable.
    Done,
    /// The key was not at the named version; nothing was changed.
    Conflict,
}

/// Keys (`/`-separated text) and values.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The value of `key`.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>>;

    /// Sets `key` to `new` (`None`: removes it) if it is at version `expected` (`None`: if it
    /// does not exist). When this returns [`Cas::Done`], the change survives `kill -9` and a
    /// power cut.
    fn cas<'a>(
        &'a self,
        key: &'a str,
        expected: Option<u64>,
        new: Option<Vec<u8>>,
    ) -> BoxFuture<'a, Result<Cas, StoreError>>;

    /// All keys that begin with `prefix`, in order.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>>;

    /// Waits until everything that was read so far is durable. A store whose readers see only
    /// what is has nothing to wait for.
    fn settled(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("{} is in use: another lighthouse runs in this directory; stop it first", .0.display())]
    InUse(PathBuf),
    /// Not readable as a store.
    #[error(
        "the store {} is damaged ({reason}): move the file away and put a backup in its place, or start without one: members then have to be told anew (restart each node's agent with a fresh seed) and grants handed over again",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// No room.
    #[error(
        "the disk with {} is full: free some space (bundles that no node needs any more lie in blobs/); nothing that was acknowledged is lost",
        .0.display()
    )]
    Full(PathBuf),
    /// Reading or writing failed.
    #[error("the store {}: {reason}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A value that this program did not write so.
    #[error("the store's entry {key:?} does not parse: {reason}")]
    Entry {
        /// Which.
        key: String,
        /// The parser's words.
        reason: String,
    },
    /// More changes wait for the disk than fit.
    #[error("the disk with {} does not keep up with what is to be written; try again in some seconds", .0.display())]
    Behind(PathBuf),
    /// Others changed the same key again and again.
    #[error("the store's entry {0:?} changes too often; try again")]
    Contended(String),
}
