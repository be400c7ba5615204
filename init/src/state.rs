//! `hf-state` before the agent starts: whether `/var` was ever formatted, and the machine id. Once
//! the agent runs it is the only one who writes there.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use holdfast_core::state::{self, COPY_OFFSET, HEADER_LEN, StateDoc, StateError};

/// What the two copies tell.
pub enum Loaded {
    /// Never written: a new disk.
    Fresh,
    /// The document.
    Known(Box<StateDoc>),
    /// Something is there that cannot be read: nothing may be concluded from it.
    Unreadable(String),
}

/// The partition, open.
pub struct StateStore {
    device: File,
    seq: u64,
    next: usize,
}

const fn offset(copy: usize) -> u64 {
    if copy == 0 { 0 } else { COPY_OFFSET }
}

fn read_copy(device: &File, copy: usize) -> Result<(StateDoc, u64), StateError> {
    let mut bytes = vec![0; HEADER_LEN];
    let unreadable = |_| StateError::Damaged("the disk gives an error");
    device
        .read_exact_at(&mut bytes, offset(copy))
        .map_err(unreadable)?;
    let (len, _) = state::peek(&bytes)?;
    bytes.resize(HEADER_LEN + len, 0);
    device
        .read_exact_at(&mut bytes, offset(copy))
        .map_err(unreadable)?;
    state::decode(&bytes)
}

impl StateStore {
    /// Opens the partition and reads what counts.
    pub fn open(device: &Path) -> Result<(Self, Loaded)> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(device)
            .with_context(|| format!("open {}", device.display()))?;
        let copies = [read_copy(&device, 0), read_copy(&device, 1)];
        let (loaded, seq, next) = conclude(copies);
        Ok((Self { device, seq, next }, loaded))
    }

    /// Writes the other copy and flushes.
    pub fn save(&mut self, doc: &StateDoc) -> Result<()> {
        let bytes = state::encode(doc, self.seq + 1).context("encode the state")?;
        self.device
            .write_all_at(&bytes, offset(self.next))
            .and_then(|()| self.device.sync_all())
            .context("write the state")?;
        self.seq += 1;
        self.next = 1 - self.next;
        Ok(())
    }
}

type Copy = Result<(StateDoc, u64), StateError>;

fn conclude([first, second]: [Copy; 2]) -> (Loaded, u64, usize) {
    let blank = |copy: &Copy| matches!(copy, Err(StateError::Magic(magic)) if *magic == [0; 8]);
    let (both_blank, why) = (
        blank(&first) && blank(&second),
        [&first, &second].map(|c| c.as_ref().err().cloned()),
    );
    match state::choose(first, second) {
        (Some((doc, seq)), next) => (Loaded::Known(Box::new(doc)), seq, next),
        (None, next) if both_blank => (Loaded::Fresh, 0, next),
        (None, next) => {
            let [first, second] = why.map(|w| w.map_or_else(String::new, |e| e.to_string()));
            (
                Loaded::Unreadable(format!("first copy: {first}; second copy: {second}")),
                0,
                next,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(32 << 20).unwrap();
        file
    }

    #[test]
    fn a_new_disk_is_fresh_and_remembers() {
        let disk = partition();
        let (mut store, loaded) = StateStore::open(disk.path()).unwrap();
        assert!(matches!(loaded, Loaded::Fresh));
        store
            .save(&StateDoc {
                var_formatted: true,
                ..StateDoc::default()
            })
            .unwrap();
        store
            .save(&StateDoc {
                var_formatted: true,
                clock_floor: 9,
                ..StateDoc::default()
            })
            .unwrap();
        let (_, loaded) = StateStore::open(disk.path()).unwrap();
        assert!(matches!(loaded, Loaded::Known(doc) if doc.var_formatted && doc.clock_floor == 9));
    }

    #[test]
    fn damage_is_never_taken_for_a_new_disk() {
        let disk = partition();
        let (mut store, _) = StateStore::open(disk.path()).unwrap();
        store.save(&StateDoc::default()).unwrap();
        disk.as_file().write_all_at(&[0xff; 64], 20).unwrap();
        let (_, loaded) = StateStore::open(disk.path()).unwrap();
        assert!(matches!(loaded, Loaded::Unreadable(_)));
    }
}
