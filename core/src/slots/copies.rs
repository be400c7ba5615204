//! The two copies of the record on a disk: the newer one counts, the older one is written.

use super::{Record, RecordError};
use crate::bytes::{Block, put};
use crate::layout::{RECORD_COPIES, RELEASE_COPIES, Role};
use alloc::vec;
use alloc::vec::Vec;

/// What was found in one copy: its sequence number, or why it is not used.
pub type CopyState = Result<u64, RecordError>;

/// The record with the knowledge which copy to write next.
///
/// After a write that failed the disk's state is unknown: read both copies again, or go on with what
/// was last written ([`Self::outrun`]).
#[derive(Debug, Clone)]
pub struct Copies {
    record: Record,
    next: usize,
}

impl Copies {
    /// Picks the newer of the two copies as read (of [`crate::bytes::BLOCK`] bytes each, at
    /// [`RECORD_COPIES`] in `hf-slots`; an unreadable one is passed as an empty slice).
    ///
    /// # Errors
    /// Why neither copy is used.
    pub fn read(copies: [&[u8]; 2]) -> Result<(Self, [CopyState; 2]), [RecordError; 2]> {
        let records = copies.map(Record::decode);
        let states = [0, 1].map(|i: usize| match &records[i] {
            Ok(record) => Ok(record.seq),
            Err(e) => Err(*e),
        });
        let (record, next) = match records {
            [Ok(a), Ok(b)] if b.seq > a.seq => (b, 0),
            [Ok(a), _] => (a, 1),
            [Err(_), Ok(b)] => (b, 0),
            [Err(a), Err(b)] => return Err([a, b]),
        };
        Ok((Self { record, next }, states))
    }

    /// For a record that is on no disk yet: write it twice, so that both copies hold it.
    #[must_use]
    pub const fn fresh(record: Record) -> Self {
        Self { record, next: 0 }
    }

    /// The record.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// The record, to call verbs on.
    pub const fn record_mut(&mut self) -> &mut Record {
        &mut self.record
    }

    /// After writes of `failed`, a changed copy of this, that did not succeed: the next write of this
    /// one is newer than whatever of them reached the disk.
    pub const fn outrun(&mut self, failed: &Self) {
        self.record.seq = failed.record.seq;
    }

    /// The next write: an offset in `hf-slots` in bytes, and the block. Flush after it.
    #[must_use]
    pub fn next_write(&mut self) -> (u64, Block) {
        self.record.seq = self.record.seq.saturating_add(1);
        let at = self.next;
        self.next = 1 - at;
        (RECORD_COPIES[at], self.record.encode())
    }
}

/// All of `hf-slots` on a disk that was never started: both copies of `record`, and both of the
/// release list.
#[must_use]
pub fn fresh_partition(record: Record, release_list: &Block) -> Vec<u8> {
    let mut copies = Copies::fresh(record);
    let mut out = vec![0; Role::Slots.size() as usize];
    let records = [copies.next_write(), copies.next_write()];
    let lists = RELEASE_COPIES.map(|at| (at, *release_list));
    for (at, block) in records.into_iter().chain(lists) {
        put(&mut out, at as usize, &block);
    }
    out
}
