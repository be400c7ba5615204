//! Finding the table: the primary one, else the backup at the disk's end, else the backup where
//! a primary header says it is.

use super::{Geometry, Table};
use crate::bytes::{get, u32_at, u64_at};
use crate::guid::Guid;
use alloc::vec::Vec;

pub(super) const SIGNATURE: &[u8; 8] = b"EFI PART";
pub(super) const HEADER_LEN: usize = 92;
/// Larger arrays are an attack or an accident: the usual one has 16 KiB.
const ENTRIES_LEN_MAX: usize = 256 * 1024;

/// Why a table is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GptError {
    /// The blocks cannot be read.
    #[error("block {0} cannot be read")]
    Unreadable(u64),
    /// There is no header.
    #[error("no GPT header in block {0}")]
    NoHeader(u64),
    /// The header does not fit its checksum or its place.
    #[error("GPT header in block {0} is damaged")]
    BadHeader(u64),
    /// The entries do not fit their checksum.
    #[error("GPT entries in block {0} are damaged")]
    BadEntries(u64),
    /// A value that makes no sense on this disk.
    #[error("GPT in block {lba}: {what} does not fit this disk")]
    Nonsense {
        /// The header's block.
        lba: u64,
        /// The value.
        what: &'static str,
    },
}

/// Which of the two tables was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The one at the disk's start.
    Primary,
    /// The one whose header is in this block.
    Backup(u64),
}

/// A table and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The table.
    pub table: Table,
    /// Which copy it is.
    pub source: Source,
    /// Why the primary table was not used, if it was not.
    pub primary: Option<GptError>,
}

/// Finds the disk's table. `read` returns that many blocks from an address, or `None`.
///
/// # Errors
/// Why the primary and why the backup table cannot be used.
pub fn find(
    disk: Geometry,
    mut read: impl FnMut(u64, u64) -> Option<Vec<u8>>,
) -> Result<Found, [GptError; 2]> {
    let mut hint = None;
    let primary = match table_at(disk, 1, &mut read, &mut hint) {
        Ok(table) => {
            return Ok(Found {
                table,
                source: Source::Primary,
                primary: None,
            });
        }
        Err(e) => e,
    };
    let backup = |lba, table| Found {
        table,
        source: Source::Backup(lba),
        primary: Some(primary),
    };
    let at_end = match table_at(disk, disk.last_lba, &mut read, &mut None) {
        Ok(table) => return Ok(backup(disk.last_lba, table)),
        Err(e) => e,
    };
    // The disk may have grown since: a header whose entries are damaged still knows.
    match hint.filter(|lba| *lba > 1 && *lba < disk.last_lba) {
        Some(lba) => {
            let table = table_at(disk, lba, &mut read, &mut None).map_err(|_| [primary, at_end])?;
            Ok(backup(lba, table))
        }
        None => Err([primary, at_end]),
    }
}

fn table_at(
    disk: Geometry,
    lba: u64,
    read: &mut impl FnMut(u64, u64) -> Option<Vec<u8>>,
    alternate: &mut Option<u64>,
) -> Result<Table, GptError> {
    let head = read(lba, 1).ok_or(GptError::Unreadable(lba))?;
    if head.len() != disk.bytes() || &head[..8] != SIGNATURE {
        return Err(GptError::NoHeader(lba));
    }
    if !header_fits(&head, lba) {
        return Err(GptError::BadHeader(lba));
    }
    let nonsense = |what| GptError::Nonsense { lba, what };
    let table_alternate = u64_at(&head, 32);
    *alternate = Some(table_alternate);

    let (first_usable, last_usable) = (u64_at(&head, 40), u64_at(&head, 48));
    if first_usable < 2 || first_usable > last_usable || last_usable >= disk.last_lba {
        return Err(nonsense("the usable range"));
    }
    let (count, entry_size) = (u32_at(&head, 80) as usize, u32_at(&head, 84) as usize);
    let len = count
        .checked_mul(entry_size)
        .filter(|n| (1..=ENTRIES_LEN_MAX).contains(n));
    let Some(len) = len.filter(|_| entry_size.is_power_of_two() && entry_size >= 128) else {
        return Err(nonsense("the size of the entries"));
    };
    let at = u64_at(&head, 72);
    let blocks = disk.blocks(len);
    if at < 2
        || at
            .checked_add(blocks)
            .is_none_or(|end| end > disk.last_lba + 1)
    {
        return Err(nonsense("the place of the entries"));
    }
    let mut entries = read(at, blocks).ok_or(GptError::Unreadable(at))?;
    entries.truncate(len);
    if entries.len() != len || crc32fast::hash(&entries) != u32_at(&head, 88) {
        return Err(GptError::BadEntries(at));
    }
    let table = Table {
        disk: Guid(get(&head, 56)),
        first_usable,
        last_usable,
        alternate: table_alternate,
        entry_size,
        entries,
    };
    if table
        .entries()
        .any(|e| e.first < first_usable || e.first > e.last || e.last > last_usable)
    {
        return Err(nonsense("a partition"));
    }
    Ok(table)
}

fn header_fits(head: &[u8], lba: u64) -> bool {
    let len = u32_at(head, 12) as usize;
    if len < HEADER_LEN || len > head.len() || u64_at(head, 24) != lba {
        return false;
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..16]);
    hasher.update(&[0; 4]);
    hasher.update(&head[20..len]);
    hasher.finalize() == u32_at(head, 16)
}
