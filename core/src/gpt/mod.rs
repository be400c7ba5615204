//! GUID partition tables (UEFI 2.10, chapter 5) as values: reading with the backup as fallback,
//! writing a new one, growing one so that a valid table is on the disk at every moment.
//!
//! No IO: reading asks a closure for blocks, writing is a list of [`Step`]s.

mod grow;
mod mbr;
#[cfg(test)]
mod model;
mod read;
mod renew;
mod write;

pub use grow::grow;
pub use mbr::{FatPart, fat_parts, hybrid, is_hybrid};
pub use read::{Found, GptError, Source, find};
pub use renew::rewrite;
pub use write::{Part, Step, create};

use crate::bytes::{get, u16_at, u64_at};
use crate::guid::Guid;
use crate::layout::Role;
use crate::text::Text;
use alloc::vec::Vec;

/// A disk's measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes a block: 512 or 4096.
    pub block: u32,
    /// The last block's address.
    pub last_lba: u64,
}

impl Geometry {
    fn bytes(self) -> usize {
        self.block as usize
    }

    /// How many blocks hold `bytes`.
    fn blocks(self, bytes: usize) -> u64 {
        bytes.div_ceil(self.bytes()) as u64
    }
}

/// One used entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the table, from 0.
    pub index: usize,
    /// Type of the partition.
    pub type_guid: Guid,
    /// The partition's own GUID.
    pub guid: Guid,
    /// First block.
    pub first: u64,
    /// Last block, inclusive.
    pub last: u64,
    /// Its name.
    pub name: Text<108>,
}

/// A table. Entries are kept as bytes, so that what others wrote into them survives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The disk's GUID.
    pub disk: Guid,
    /// First block that partitions may use.
    pub first_usable: u64,
    /// Last block that partitions may use.
    pub last_usable: u64,
    /// Where the other copy's header lies: for the primary table the backup's, and the reverse.
    alternate: u64,
    entry_size: usize,
    entries: Vec<u8>,
}

impl Table {
    /// The used entries.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.entries
            .chunks_exact(self.entry_size)
            .enumerate()
            .map(|(index, bytes)| entry(index, bytes))
            .filter(|e| e.type_guid != Guid::NIL)
    }

    /// The partition of this role, by type and name.
    #[must_use]
    pub fn role(&self, role: Role) -> Option<Entry> {
        self.entries()
            .find(|e| e.type_guid == role.type_guid() && e.name.as_str() == role.name())
    }
}

fn entry(index: usize, b: &[u8]) -> Entry {
    let units = (56..128)
        .step_by(2)
        .map(|at| u16_at(b, at))
        .take_while(|u| *u != 0);
    let mut name = Text::EMPTY;
    for c in char::decode_utf16(units) {
        let _ = core::fmt::Write::write_char(&mut name, c.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Entry {
        index,
        type_guid: Guid(get(b, 0)),
        guid: Guid(get(b, 16)),
        first: u64_at(b, 32),
        last: u64_at(b, 40),
        name,
    }
}
