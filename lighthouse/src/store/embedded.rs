//! The store in one file (redb).

use super::{Cas, Store, StoreError, Versioned};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Key to version (8 bytes, big endian) and value.
const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries-1");
/// One row: the last version given out.
const LAST: TableDefinition<(), u64> = TableDefinition::new("last-version-1");
/// The whole store is a few megabytes.
const CACHE: usize = 4 << 20;

/// A [`Store`] in a local file; only one process at a time has it open.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// None after a failed write (full disk): redb refuses everything until it is opened anew.
    database: Mutex<Option<Database>>,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Embedded({})", self.inner.path.display())
    }
}

impl Embedded {
    /// Opens the file, making it if there is none, and checks every page of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let inner = Inner {
            path: path.clone(),
            database: Mutex::new(None),
        };
        let this = Self {
            inner: Arc::new(inner),
        };
        this.run(|_| Ok(())).await?;
        Ok(this)
    }

    /// Runs `work` on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || inner.with(work)).await;
        // redb may panic on a damaged file; that stays inside the task.
        done.unwrap_or_else(|panic| Err(damaged(&self.inner.path, panic)))
    }
}

impl Inner {
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match held.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        match work(&database) {
            Ok(value) => {
                *held = Some(database);
                Ok(value)
            }
            Err(error) => Err(translate(&self.path, error)),
        }
    }
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

fn swap(
    database: &Database,
    key: &str,
    expected: Option<u64>,
    new: Option<&[u8]>,
) -> Result<Cas, redb::Error> {
    let change = database.begin_write()?;
    {
        let mut entries = change.open_table(ENTRIES)?;
        let current = match entries.get(key)? {
            Some(raw) => Some(decode(raw.value()).ok_or_else(short)?.version),
            None => None,
        };
        if current != expected {
            return Ok(Cas::Conflict);
        }
        match new {
            Some(value) => {
                let mut last = change.open_table(LAST)?;
                let version = last.get(())?.map_or(0, |v| v.value()) + 1;
                last.insert((), version)?;
                entries.insert(key, [&version.to_be_bytes(), value].concat().as_slice())?;
            }
            None => {
                entries.remove(key)?;
            }
        }
    }
    // Immediate durability is redb's default: commit returns after fsync.
    change.commit()?;
    Ok(Cas::Done)
}

impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        let key = key.to_owned();
        self.run(move |database| {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            match entries.get(key.as_str())? {
                Some(raw) => Ok(Some(decode(raw.value()).ok_or_else(short)?)),
                None => Ok(None),
            }
        })
        .boxed()
    }

    fn cas<'a>(
        &'a self,
        key: &'a str,
        expected: Option<u64>,
        new: Option<Vec<u8>>,
    ) -> BoxFuture<'a, Result<Cas, StoreError>> {
        let key = key.to_owned();
        self.run(move |database| swap(database, &key, expected, new.as_deref()))
            .boxed()
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        let prefix = prefix.to_owned();
        self.run(move |database| {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            let mut found = vec![];
            for entry in entries.range(prefix.as_str()..)? {
                let (key, raw) = entry?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                found.push((
                    key.value().to_owned(),
                    decode(raw.value()).ok_or_else(short)?,
                ));
            }
            Ok(found)
        })
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
