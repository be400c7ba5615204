//! `hf-state` on disk: read once, changed by [`Store::update`] only, the older copy overwritten.

use crate::disk;
use anyhow::{Context as _, bail};
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

/// Why a state that was here once is lost, in words.
pub type Lost = Option<String>;

/// Why a copy does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// The disk gave an error: what stands there is not known.
    Disk(String),
    /// What stands there is no state that can be read.
    Content(StateError),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disk(why) => f.write_str(why),
            Self::Content(why) => why.fmt(f),
        }
    }
}

fn read_copy(file: &File, copy: u64) -> Result<(StateDoc, u64), Fault> {
    let read = |len| {
        disk::read_at(file, copy * COPY_OFFSET, len)
            .map_err(|e| Fault::Disk(format!("copy {copy}: {e}")))
    };
    let (len, _) = state::peek(&read(HEADER_LEN)?).map_err(Fault::Content)?;
    state::decode(&read(HEADER_LEN + len)?).map_err(Fault::Content)
}

/// What a disk begins with on which neither copy counts, and what was lost with them.
///
/// # Errors
/// When the state may still be there: overwriting it would take the node's identity.
fn anew(faults: [Fault; 2]) -> anyhow::Result<(StateDoc, Lost)> {
    let [a, b] = &faults;
    let blank = |f: &Fault| *f == Fault::Content(StateError::Magic([0; 8]));
    if blank(a) && blank(b) {
        return Ok((StateDoc::default(), None));
    }
    let later = |e: &StateError| matches!(e, StateError::Version(_) | StateError::Content(_));
    let may_mend = |f: &Fault| match f {
        Fault::Disk(_) => true,
        Fault::Content(e) => later(e),
    };
    if may_mend(a) || may_mend(b) {
        bail!("hf-state cannot be read and is not overwritten: {a}; {b}");
    }
    let doc = StateDoc {
        // Something was here once, so /var may hold data: never to be formatted by itself.
        var_formatted: true,
        ..StateDoc::default()
    };
    Ok((doc, Some(format!("{a}; {b}"))))
}

fn load(file: &File) -> anyhow::Result<(StateDoc, u64, usize, Lost)> {
    let copies = [read_copy(file, 0), read_copy(file, 1)];
    if let [Err(a), Err(b)] = copies {
        let (doc, lost) = anew([a, b])?;
        return Ok((doc, 0, 0, lost));
    }
    // One counts: of the other it does not matter why it does not.
    let [first, second] = copies.map(|c| c.map_err(|_| StateError::Damaged("unreadable")));
    let (kept, next) = state::choose(first, second);
    let (doc, seq) = kept.context("hf-state: neither copy counts")?;
    Ok((doc, seq, next, None))
}

impl Store {
    /// Reads the state. A disk that holds none begins with an empty one; the second value says
    /// what was lost.
    ///
    /// # Errors
    /// When the partition cannot be opened, or its state not be read but may still be there.
    pub async fn open(path: &Path) -> anyhow::Result<(Self, Lost)> {
        let path = path.to_path_buf();
        disk::blocking(move || {
            let file = disk::open_write(&path).context("hf-state cannot be opened")?;
            let (doc, seq, next, lost) = load(&file)?;
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

    /// Changes the state in memory; the disk has it with the next [`update`](Self::update). For what
    /// changes often and may be lost.
    pub async fn note(&self, change: impl FnOnce(&mut StateDoc)) {
        // No update may run meanwhile: it would take this back.
        let _place = self.disk.lock().await;
        let mut doc = StateDoc::clone(&self.get());
        change(&mut doc);
        self.now.send_replace(Arc::new(doc));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    /// A blank `hf-state`.
    pub fn partition() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 * COPY_OFFSET).unwrap();
        file
    }

    #[tokio::test]
    async fn what_was_stored_is_there_after_a_restart() {
        let disk = partition();
        let (store, lost) = Store::open(disk.path()).await.unwrap();
        assert!(lost.is_none() && !store.get().var_formatted);
        for floor in 1..=5 {
            store.update(|d| d.clock_floor = floor).await.unwrap();
        }
        let (again, lost) = Store::open(disk.path()).await.unwrap();
        assert!(lost.is_none());
        assert_eq!(again.get().clock_floor, 5);
    }

    #[tokio::test]
    async fn what_was_noted_comes_to_the_disk_with_the_next_write() {
        let disk = partition();
        let (store, _) = Store::open(disk.path()).await.unwrap();
        store.note(|d| d.clock_floor = 7).await;
        assert_eq!(store.get().clock_floor, 7);
        let (again, _) = Store::open(disk.path()).await.unwrap();
        assert_eq!(again.get().clock_floor, 0);
        store.update(|d| d.status_counter = 1).await.unwrap();
        let (again, _) = Store::open(disk.path()).await.unwrap();
        assert_eq!(again.get().clock_floor, 7);
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

    #[tokio::test]
    async fn a_lost_state_leaves_var_alone() {
        let disk = partition();
        disk.as_file().write_all_at(&[0xee; 64], 0).unwrap();
        let (store, lost) = Store::open(disk.path()).await.unwrap();
        assert!(store.get().var_formatted && lost.is_some());
    }

    #[tokio::test]
    async fn what_may_still_be_there_is_not_overwritten() {
        let disk = partition();
        // A later format in the one copy, damage in the other.
        let mut later = state::encode(&StateDoc::default(), 7).unwrap();
        later[8..12].copy_from_slice(&(state::VERSION + 1).to_le_bytes());
        let crc = crc32(&later[..56]);
        later[56..60].copy_from_slice(&crc.to_le_bytes());
        disk.as_file().write_all_at(&later, COPY_OFFSET).unwrap();
        let refused = Store::open(disk.path()).await.err().unwrap();
        assert!(refused.to_string().contains("not overwritten"), "{refused}");
        let blank = Fault::Content(StateError::Magic([0; 8]));
        assert!(anew([Fault::Disk("copy 0: EIO".into()), blank]).is_err());
    }

    #[tokio::test]
    async fn a_state_of_a_later_version_is_not_overwritten_by_one_that_cannot_read_it() {
        let disk = partition();
        let (store, _) = Store::open(disk.path()).await.unwrap();
        // As this version writes what it does not know, and then what it does.
        let odd = |d: &mut StateDoc| d.other.insert("admission".into(), "of 2031".into());
        store.update(odd).await.unwrap();
        store.update(odd).await.unwrap();
        let before = std::fs::read(disk.path()).unwrap();
        let refused = Store::open(disk.path()).await.err().unwrap();
        assert!(refused.to_string().contains("not overwritten"), "{refused}");
        assert!(std::fs::read(disk.path()).unwrap() == before);
    }

    /// CRC-32 (IEEE), bit by bit.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |c, _| {
                (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg())
            })
        })
    }
}
