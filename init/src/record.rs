//! The slot record on disk while the system runs: init is its only writer.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use holdfast_core::bytes::BLOCK;
use holdfast_core::keys::unhex;
use holdfast_core::layout::RECORD_COPIES;
use holdfast_core::slots::{BootId, Copies, Record, VerbError};

/// The record of the disk this system was started from.
#[derive(Debug)]
pub struct RecordStore {
    device: File,
    copies: Copies,
    boot_id: BootId,
}

fn read_copies(device: &File) -> Option<Copies> {
    let mut blocks = [vec![0; BLOCK], vec![0; BLOCK]];
    for (block, at) in blocks.iter_mut().zip(RECORD_COPIES) {
        if device.read_exact_at(block, at).is_err() {
            block.clear();
        }
    }
    let [a, b] = &blocks;
    Copies::read([a, b]).ok().map(|(copies, _)| copies)
}

impl RecordStore {
    /// Opens `hf-slots` at `device` if its record was written for this boot, and something of its
    /// disk was started: the loader also asks disks that have nothing to start, before another.
    pub fn open(device: &Path, boot_id: &BootId) -> io::Result<Option<Self>> {
        let device = OpenOptions::new().read(true).write(true).open(device)?;
        let copies = read_copies(&device).filter(|copies| {
            let record = copies.record();
            record.boot_id() == boot_id && record.running().is_some()
        });
        Ok(copies.map(|copies| Self {
            device,
            copies,
            boot_id: *boot_id,
        }))
    }

    /// The record.
    pub fn record(&self) -> &Record {
        self.copies.record()
    }

    /// This boot's id.
    pub fn boot_id(&self) -> &BootId {
        &self.boot_id
    }

    /// Changes the record by a verb that says whether it changed anything: nothing to change means
    /// nothing to write, for flash wears. What the verb refuses changes nothing either.
    pub fn news(
        &mut self,
        verb: impl Fn(&mut Record, &BootId) -> Result<bool, VerbError>,
    ) -> Result<bool> {
        let mut copy = self.record().clone();
        if !verb(&mut copy, &self.boot_id).unwrap_or(false) {
            return Ok(false);
        }
        self.change(verb)
    }

    /// Changes the record and flushes it; on an error of the verb nothing is written.
    pub fn change<T, E>(
        &mut self,
        verb: impl FnOnce(&mut Record, &BootId) -> Result<T, E>,
    ) -> Result<T>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut changed = self.copies.clone();
        let value = verb(changed.record_mut(), &self.boot_id)?;
        let mut failed = None;
        // A block that takes no writes is not the end: the other copy may, as the loader does it.
        for _ in RECORD_COPIES {
            let (at, block) = changed.next_write();
            let written = self
                .device
                .write_all_at(&block, at)
                .and_then(|()| self.device.sync_all());
            match written {
                Ok(()) => {
                    self.copies = changed;
                    return Ok(value);
                }
                Err(error) => failed = Some(error),
            }
        }
        // What memory holds stays what was last written: what would be read now may come from the
        // page cache and not from the disk. What did reach it must not come back.
        self.copies.outrun(&changed);
        match failed {
            Some(error) => Err(error).context("write the slot record"),
            None => bail!("the slot record has no copies"),
        }
    }
}

/// The loader's id as it stands on the command line: 32 hex digits.
pub fn boot_id(hex: &str) -> Option<BootId> {
    unhex(hex)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::slots::{Excluded, Slot};
    use std::convert::Infallible;

    fn disk(id: BootId) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 << 20).unwrap();
        let mut copies = Copies::fresh(Record::factory([7; 32], 1));
        for _ in 0..2 {
            let (at, block) = copies.next_write();
            file.as_file().write_all_at(&block, at).unwrap();
        }
        copies
            .record_mut()
            .choose_start(id, Excluded::default())
            .unwrap();
        let (at, block) = copies.next_write();
        file.as_file().write_all_at(&block, at).unwrap();
        file
    }

    fn written(record: Record) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 << 20).unwrap();
        let mut copies = Copies::fresh(record);
        for _ in RECORD_COPIES {
            let (at, block) = copies.next_write();
            file.as_file().write_all_at(&block, at).unwrap();
        }
        file
    }

    #[test]
    fn only_this_boots_disk_is_opened_and_changes_last() {
        let disk = disk([3; 16]);
        assert!(RecordStore::open(disk.path(), &[4; 16]).unwrap().is_none());
        let mut store = RecordStore::open(disk.path(), &[3; 16]).unwrap().unwrap();
        assert_eq!(store.record().slot(Slot::A).starts, 1);
        store.change(|record, id| record.quiet(id)).unwrap();
        store
            .change(|record, _| {
                record.request_rescue();
                Ok::<_, Infallible>(())
            })
            .unwrap();
        let again = RecordStore::open(disk.path(), &[3; 16]).unwrap().unwrap();
        assert_eq!(again.record().slot(Slot::A).starts, 0);
        assert!(again.record().rescue_requested());
    }

    #[test]
    fn a_disk_that_was_asked_in_vain_is_not_taken() {
        let mut record = Record::factory([1; 32], 1);
        record.choose_start([2; 16], Excluded::default()).unwrap();
        record.retire(&[2; 16]).unwrap();
        let mut excluded = Excluded::default();
        while let Some(start) = record.choose_start([3; 16], excluded) {
            excluded.add(start.target);
        }
        let disk = written(record);
        assert!(RecordStore::open(disk.path(), &[3; 16]).unwrap().is_none());
    }

    #[test]
    fn a_refused_verb_writes_nothing() {
        let disk = disk([3; 16]);
        let before = std::fs::read(disk.path()).unwrap();
        let mut store = RecordStore::open(disk.path(), &[3; 16]).unwrap().unwrap();
        assert!(
            store
                .change(|record, id| record.begin_write(id, Slot::A))
                .is_err()
        );
        assert_eq!(std::fs::read(disk.path()).unwrap(), before);
    }

    #[test]
    fn ids_are_32_digits() {
        assert_eq!(boot_id(&"0f".repeat(16)), Some([15; 16]));
        assert_eq!(boot_id("0f"), None);
        assert_eq!(boot_id(&"+f".repeat(16)), None);
        assert_eq!(boot_id(&"é".repeat(16)), None);
    }
}
