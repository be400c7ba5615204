//! `hf-state` on disk: read once, changed by [`Store::update`] only, the older copy overwritten.

use crate::disk;
use anyhow::Context as _;
use holdfast_core::state::{self, COPY_OFFSET, HEADER_LEN, StateDoc, StateError};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};

/// The node's state with its place on disk.
pub struct Store {
    disk: Mutex<Place>,
    now: watch::Sender<Arc<StateDoc>>,
}

struct Place {
    file: Arc<File>,
    seq: u64,
    /// The copy to write next: 0 or 1.
    next: usize,
}

/// Why both copies do not count, for the console.
pub type Lost = Option<[StateError; 2]>;

fn read_copy(file: &File, copy: u64) -> Result<(StateDoc, u64), StateError> {
    let at = copy * COPY_OFFSET;
    let io = |e: std::io::Error| StateError::Content(format!("copy {copy}: {e}"));
    let header = disk::read_at(file, at, HEADER_LEN).map_err(io)?;
    let (len, _) = state::peek(&header)?;
    state::decode(&disk::read_at(file, at, HEADER_LEN + len).map_err(io)?)
}

fn load(file: &File) -> (StateDoc, u64, usize, Lost) {
    let (first, second) = (read_copy(file, 0), read_copy(file, 1));
    let lost = match (&first, &second) {
        (Err(a), Err(b)) => Some([a.clone(), b.clone()]),
        _ => None,
    };
    let (kept, next) = state::choose(first, second);
    let (doc, seq) = kept.unwrap_or_default();
    (doc, seq, next, lost)
}

impl Store {
    /// Reads the state. A disk that holds none begins with an empty one; the second value says
    /// what was wrong with its copies.
    ///
    /// # Errors
    /// When the partition cannot be opened.
    pub async fn open(path: &Path) -> anyhow::Result<(Self, Lost)> {
        let path = path.to_path_buf();
        disk::blocking(move || {
            let file = disk::open_write(&path).context("hf-state cannot be opened")?;
            let (doc, seq, next, lost) = load(&file);
            let disk = Mutex::new(Place {
                file: Arc::new(file),
                seq,
                next,
            });
            Ok((
                Self {
                    disk,
                    now: watch::Sender::new(Arc::new(doc)),
                },
                lost,
            ))
        })
        .await
    }

    /// The state as last stored.
    pub fn get(&self) -> Arc<StateDoc> {
        self.now.borrow().clone()
    }

    /// Told of each change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<StateDoc>> {
        self.now.subscribe()
    }

    /// Changes the state; returns when the disk has it. On an error nothing has changed.
    ///
    /// # Errors
    /// When the disk refuses or the state outgrew its place.
    pub async fn update<T>(&self, change: impl FnOnce(&mut StateDoc) -> T) -> anyhow::Result<T> {
        let mut place = self.disk.lock().await;
        let mut doc = StateDoc::clone(&self.get());
        let out = change(&mut doc);
        let seq = place.seq + 1;
        let bytes = state::encode(&doc, seq)?;
        let (file, at) = (place.file.clone(), place.next as u64 * COPY_OFFSET);
        disk::blocking(move || {
            disk::write_flushed(&file, at, &bytes).context("hf-state cannot be written")
        })
        .await?;
        place.seq = seq;
        place.next = 1 - place.next;
        self.now.send_replace(Arc::new(doc));
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    fn partition() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 * COPY_OFFSET).unwrap();
        file
    }

    #[tokio::test]
    async fn what_was_stored_is_there_after_a_restart() {
        let disk = partition();
        let (store, lost) = Store::open(disk.path()).await.unwrap();
        assert!(matches!(lost, Some([StateError::Magic(_), _])));
        for floor in 1..=5 {
            store.update(|d| d.clock_floor = floor).await.unwrap();
        }
        let (again, lost) = Store::open(disk.path()).await.unwrap();
        assert!(lost.is_none());
        assert_eq!(again.get().clock_floor, 5);
    }

    #[tokio::test]
    async fn a_torn_write_leaves_the_state_before_it() {
        let disk = partition();
        let (store, _) = Store::open(disk.path()).await.unwrap();
        store.update(|d| d.clock_floor = 1).await.unwrap();
        store.update(|d| d.clock_floor = 2).await.unwrap();
        // The third went to copy 0: cut it in the middle of its payload.
        store.update(|d| d.clock_floor = 3).await.unwrap();
        disk.as_file()
            .write_all_at(&[0xee; 64], HEADER_LEN as u64 + 3)
            .unwrap();
        let (again, _) = Store::open(disk.path()).await.unwrap();
        assert_eq!(again.get().clock_floor, 2);
        // The next write replaces the damaged copy.
        again.update(|d| d.clock_floor = 4).await.unwrap();
        let (last, _) = Store::open(disk.path()).await.unwrap();
        assert_eq!(last.get().clock_floor, 4);
    }
}
