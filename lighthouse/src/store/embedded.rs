//! The store in one file (redb), with all of it in memory.
//!
//! Reads are answered from memory. Changes are decided there too, queued, and written by one
//! thread: everything that came while the disk was busy goes into its next transaction, so that
//! many writers share one flush. Each is told once its transaction is durable. A reader may see a
//! change that is not yet: whoever promises something on it waits ([`Store::settled`]). When a
//! transaction fails, everything queued behind it fails too (it may rest on it), and memory is read
//! anew from the file.

use super::{Cas, Store, StoreError, Versioned};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Key to version (8 bytes, big endian) and value.
const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries-1");
/// One row: the last version given out.
const LAST: TableDefinition<(), u64> = TableDefinition::new("last-version-1");
/// Reads never come here: this is for the writer's pages.
const CACHE: usize = 4 << 20;
/// Values that wait for the disk, in bytes; whoever comes when there are as many is refused.
const QUEUE: usize = 32 << 20;
/// How often a file that could not be read anew is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A [`Store`] in a local file; only one process at a time has it open.
#[derive(Clone)]
pub struct Embedded {
    owner: Arc<Owner>,
}

/// Ends the writer, once what is queued is written, when the last handle is dropped.
struct Owner {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    memory: Mutex<Memory>,
    /// Something to write, or the end.
    work: Condvar,
}

/// Told what became of a change.
type Told = oneshot::Sender<Result<(), StoreError>>;

/// A key and what it becomes; none: it is removed.
type Change = (String, Option<Versioned>);

#[derive(Default)]
struct Memory {
    entries: BTreeMap<String, Versioned>,
    last: u64,
    queue: Vec<Change>,
    /// Of the values in the queue, and of those that are being written.
    queued: usize,
    waiting: Vec<Told>,
    /// A transaction is being written.
    busy: bool,
    closing: bool,
    /// The file could not be read again after a failed write.
    broken: Option<StoreError>,
    #[cfg(test)]
    commits: usize,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Embedded({})", self.owner.shared.path.display())
    }
}

impl Embedded {
    /// Opens the file, making it if there is none, checks every page of it and reads it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let at = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || read(&at)).await;
        // redb may panic on a damaged file; that stays inside the task.
        let (database, entries, last) = opened.unwrap_or_else(|panic| Err(damaged(path, panic)))?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            memory: Mutex::new(Memory {
                entries,
                last,
                ..Memory::default()
            }),
            work: Condvar::new(),
        });
        let own = shared.clone();
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_all(&own, database))
            .map_err(|e| StoreError::Io {
                path: path.to_owned(),
                reason: format!("no thread for it: {e}"),
            })?;
        Ok(Self {
            owner: Arc::new(Owner {
                shared,
                writer: Some(writer),
            }),
        })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.hold().closing = true;
        self.shared.work.notify_one();
        if let Some(writer) = self.writer.take() {
            // It ends by itself and has caught its panics.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn hold(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sound(&self) -> Result<MutexGuard<'_, Memory>, StoreError> {
        let memory = self.hold();
        match &memory.broken {
            Some(error) => Err(error.clone()),
            None => Ok(memory),
        }
    }

    /// Changes memory and queues the same for the file.
    fn swap(
        &self,
        key: &str,
        expected: Option<u64>,
        new: Option<Vec<u8>>,
    ) -> Result<Option<oneshot::Receiver<Result<(), StoreError>>>, StoreError> {
        let mut memory = self.sound()?;
        if memory.entries.get(key).map(|v| v.version) != expected {
            return Ok(None);
        }
        if memory.queued >= QUEUE {
            return Err(StoreError::Behind(self.path.clone()));
        }
        memory.queued += new.as_ref().map_or(0, Vec::len);
        let new = new.map(|value| {
            memory.last += 1;
            Versioned {
                value,
                version: memory.last,
            }
        });
        match &new {
            Some(new) => memory.entries.insert(key.to_owned(), new.clone()),
            None => memory.entries.remove(key),
        };
        memory.queue.push((key.to_owned(), new));
        let (tell, told) = oneshot::channel();
        memory.waiting.push(tell);
        drop(memory);
        self.work.notify_one();
        Ok(Some(told))
    }

    async fn outcome(
        &self,
        told: oneshot::Receiver<Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        let ended = |_| {
            Err(StoreError::Io {
                path: self.path.clone(),
                reason: "the writer ended".into(),
            })
        };
        told.await.unwrap_or_else(ended)
    }
}

/// Of the values.
fn bytes(queue: &[Change]) -> usize {
    let values = queue.iter().filter_map(|(_, new)| new.as_ref());
    values.map(|new| new.value.len()).sum()
}

/// The writer's life.
fn write_all(shared: &Shared, database: Database) {
    let mut database = Some(database);
    loop {
        let mut memory = shared.hold();
        while memory.queue.is_empty() && memory.waiting.is_empty() && memory.broken.is_none() {
            if memory.closing {
                return;
            }
            memory = shared
                .work
                .wait(memory)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if memory.broken.is_some() {
            if memory.closing {
                return;
            }
            let (mut memory, _) = shared
                .work
                .wait_timeout(memory, AGAIN)
                .unwrap_or_else(PoisonError::into_inner);
            restore(shared, &mut memory, &mut database);
            continue;
        }
        let (queue, waiting, last) = (
            std::mem::take(&mut memory.queue),
            std::mem::take(&mut memory.waiting),
            memory.last,
        );
        memory.busy = true;
        drop(memory);
        let written = match &database {
            Some(database) if !queue.is_empty() => {
                catch_unwind(AssertUnwindSafe(|| commit(database, &queue, last)))
                    .unwrap_or_else(|_| Err(redb::Error::Corrupted("a panic in redb".into())))
                    .map_err(|e| translate(&shared.path, e))
            }
            _ => Ok(()),
        };
        let mut memory = shared.hold();
        memory.busy = false;
        memory.queued = memory.queued.saturating_sub(bytes(&queue));
        #[cfg(test)]
        {
            memory.commits += usize::from(!queue.is_empty());
        }
        let mut told = waiting;
        if written.is_err() {
            memory.queue.clear();
            memory.queued = 0;
            told.append(&mut memory.waiting);
            restore(shared, &mut memory, &mut database);
        }
        drop(memory);
        for tell in told {
            // Whoever asked may have gone.
            let _ = tell.send(written.clone());
        }
    }
}

/// Reads memory anew from the file; redb refuses everything after a failed write until it is opened
/// anew.
fn restore(shared: &Shared, memory: &mut Memory, database: &mut Option<Database>) {
    *database = None;
    let again = catch_unwind(AssertUnwindSafe(|| read(&shared.path)))
        .unwrap_or_else(|_| Err(damaged(&shared.path, "a panic in redb")));
    match again {
        Ok((opened, entries, last)) => {
            *database = Some(opened);
            memory.entries = entries;
            // No version is used twice, written or not.
            memory.last = memory.last.max(last);
            memory.broken = None;
        }
        Err(error) => memory.broken = Some(error),
    }
}

type Read = (Database, BTreeMap<String, Versioned>, u64);

fn read(path: &Path) -> Result<Read, StoreError> {
    let database = open(path)?;
    let load = || -> Result<_, redb::Error> {
        let view = database.begin_read()?;
        let mut entries = BTreeMap::new();
        for entry in view.open_table(ENTRIES)?.iter()? {
            let (key, raw) = entry?;
            let found = decode(raw.value()).ok_or_else(short)?;
            entries.insert(key.value().to_owned(), found);
        }
        let last = view.open_table(LAST)?.get(())?.map_or(0, |v| v.value());
        Ok((entries, last))
    };
    let (entries, last) = load().map_err(|e| translate(path, e))?;
    Ok((database, entries, last))
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let failed = |e: DatabaseError| translate(path, e.into());
    let mut database = Database::builder()
        .set_cache_size(CACHE)
        .create(path)
        .map_err(failed)?;
    if !database.check_integrity().map_err(failed)? {
        tracing::warn!(store = %path.display(), "the store had not been closed properly; repaired");
    }
    let tables = || -> Result<(), redb::Error> {
        let change = database.begin_write()?;
        change.open_table(ENTRIES)?;
        change.open_table(LAST)?;
        change.commit()?;
        Ok(())
    };
    tables().map_err(|e| translate(path, e))?;
    Ok(database)
}

fn damaged(path: &Path, reason: impl ToString) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn translate(path: &Path, error: redb::Error) -> StoreError {
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        redb::Error::Io(e) => match e.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                StoreError::Full(path.to_owned())
            }
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => damaged(path, e),
            _ => StoreError::Io {
                path: path.to_owned(),
                reason: e.to_string(),
            },
        },
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => StoreError::Io {
            path: path.to_owned(),
            reason: "an earlier write failed; the next call opens the file anew".into(),
        },
        other => damaged(path, other),
    }
}

fn decode(raw: &[u8]) -> Option<Versioned> {
    let (version, value) = raw.split_first_chunk::<8>()?;
    Some(Versioned {
        version: u64::from_be_bytes(*version),
        value: value.to_vec(),
    })
}

fn short() -> redb::Error {
    redb::Error::Corrupted("an entry is shorter than its version".into())
}

/// One transaction with everything in it, durable when this returns (redb's default).
fn commit(database: &Database, queue: &[Change], last: u64) -> Result<(), redb::Error> {
    let change = database.begin_write()?;
    {
        let mut entries = change.open_table(ENTRIES)?;
        for (key, new) in queue {
            match new {
                Some(new) => {
                    let raw = [&new.version.to_be_bytes(), new.value.as_slice()].concat();
                    entries.insert(key.as_str(), raw.as_slice())?;
                }
                None => {
                    entries.remove(key.as_str())?;
                }
            }
        }
        change.open_table(LAST)?.insert((), last)?;
    }
    change.commit()?;
    Ok(())
}

impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        async move { Ok(self.owner.shared.sound()?.entries.get(key).cloned()) }.boxed()
    }

    fn cas<'a>(
        &'a self,
        key: &'a str,
        expected: Option<u64>,
        new: Option<Vec<u8>>,
    ) -> BoxFuture<'a, Result<Cas, StoreError>> {
        async move {
            let shared = &self.owner.shared;
            let Some(told) = shared.swap(key, expected, new)? else {
                return Ok(Cas::Conflict);
            };
            shared.outcome(told).await?;
            Ok(Cas::Done)
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        async move {
            let memory = self.owner.shared.sound()?;
            let from = memory.entries.range(prefix.to_owned()..);
            let under = from.take_while(|(key, _)| key.starts_with(prefix));
            Ok(under.map(|(k, v)| (k.clone(), v.clone())).collect())
        }
        .boxed()
    }

    fn settled(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let shared = &self.owner.shared;
            let told = {
                let mut memory = shared.sound()?;
                if memory.queue.is_empty() && !memory.busy {
                    return Ok(());
                }
                let (tell, told) = oneshot::channel();
                memory.waiting.push(tell);
                told
            };
            shared.work.notify_one();
            shared.outcome(told).await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn swaps_only_at_the_named_version_and_never_uses_one_twice() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("s");
        let store = Embedded::open(&path).await.unwrap();
        let set = |expected, text: &'static str| {
            let store = store.clone();
            async move { store.cas("a/b", expected, Some(text.into())).await.unwrap() }
        };
        assert_eq!(set(Some(1), "x").await, Cas::Conflict);
        assert_eq!(set(None, "x").await, Cas::Done);
        assert_eq!(set(None, "y").await, Cas::Conflict);
        let first = store.get("a/b").await.unwrap().unwrap();
        assert_eq!(first.value, b"x");
        assert_eq!(
            store.cas("a/b", Some(first.version), None).await.unwrap(),
            Cas::Done
        );
        assert_eq!(set(None, "z").await, Cas::Done);
        drop(store);
        let store = Embedded::open(&path).await.unwrap();
        assert!(store.get("a/b").await.unwrap().unwrap().version > first.version);
        store.cas("a0", None, Some(vec![])).await.unwrap();
        let keys = store.list("a/").await.unwrap();
        assert_eq!(
            keys.iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>(),
            ["a/b"]
        );
        assert!(store.get("nothing").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn many_writers_share_a_flush_and_all_of_it_lasts() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("s");
        let store = Embedded::open(&path).await.unwrap();
        let writes = (0..500).map(|n: u32| {
            let store = store.clone();
            async move {
                let done = store.cas(&format!("k{n}"), None, Some(vec![1])).await;
                assert_eq!(done.unwrap(), Cas::Done);
            }
        });
        futures_util::future::join_all(writes).await;
        store.settled().await.unwrap();
        let commits = store.owner.shared.hold().commits;
        assert!(commits < 100, "{commits}");
        drop(store);
        let store = Embedded::open(&path).await.unwrap();
        assert_eq!(store.list("k").await.unwrap().len(), 500);
    }

    #[tokio::test]
    async fn what_waits_for_the_disk_is_bounded() {
        let tmp = tempfile::tempdir().unwrap();
        let store = Embedded::open(&tmp.path().join("s")).await.unwrap();
        let put = |n: u32| {
            let (store, value) = (store.clone(), vec![0; QUEUE / 4]);
            async move { store.cas(&format!("k{n}"), None, Some(value)).await }
        };
        // Cut off by those who asked, they stay queued.
        let mut refused = false;
        for n in 0..1000 {
            if let Some(Err(StoreError::Behind(_))) = put(n).now_or_never() {
                refused = true;
                break;
            }
            assert!(store.owner.shared.hold().queued <= 2 * QUEUE);
        }
        assert!(refused);
        store.settled().await.unwrap();
        put(1000).await.unwrap();
        assert_eq!(store.owner.shared.hold().queued, 0);
    }

    #[tokio::test]
    async fn what_rests_on_a_change_waits_for_it() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("s");
        let store = Embedded::open(&path).await.unwrap();
        let mut write = store.cas("k", None, Some(vec![1]));
        // Queued, and perhaps written, but not told yet.
        assert!((&mut write).now_or_never().is_none());
        assert!(store.get("k").await.unwrap().is_some());
        store.settled().await.unwrap();
        let copy = tmp.path().join("copy");
        // What a power cut would leave.
        std::fs::copy(&path, &copy).unwrap();
        let after = Embedded::open(&copy).await.unwrap();
        assert!(after.get("k").await.unwrap().is_some());
        drop(write);
    }

    #[tokio::test]
    async fn a_second_opener_is_told() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("s");
        let _first = Embedded::open(&path).await.unwrap();
        assert!(matches!(
            Embedded::open(&path).await,
            Err(StoreError::InUse(_))
        ));
    }

    #[tokio::test]
    async fn damage_anywhere_is_told_or_does_not_matter() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("s");
        let store = Embedded::open(&path).await.unwrap();
        for i in 0..40 {
            store
                .cas(&format!("k{i:02}"), None, Some(vec![i; 500]))
                .await
                .unwrap();
        }
        drop(store);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(
            &path,
            b"this is no store at all, but some other file".repeat(200),
        )
        .unwrap();
        let error = Embedded::open(&path).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        for at in (0..whole.len()).step_by(whole.len() / 60) {
            let mut bytes = whole.clone();
            bytes[at..].iter_mut().take(64).for_each(|b| *b ^= 0xff);
            std::fs::write(&path, &bytes).unwrap();
            let read = async {
                let store = Embedded::open(&path).await?;
                store.list("k").await
            };
            match read.await {
                Ok(all) => {
                    assert!(
                        all.iter()
                            .all(|(_, v)| v.value.iter().all(|b| *b == v.value[0]))
                    );
                    assert_eq!(all.len(), 40, "entries lost silently at {at}");
                }
                Err(StoreError::Damaged { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}
