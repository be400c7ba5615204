//! Tables as bytes, and a new disk's table.

use super::read::{HEADER_LEN, SIGNATURE};
use super::{Geometry, Table, mbr};
use crate::bytes::put;
use crate::guid::Guid;
use alloc::vec;
use alloc::vec::Vec;

const ENTRY_LEN: usize = 128;
const ENTRIES: usize = 128;

/// One step of writing; steps are taken in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write whole blocks.
    Write {
        /// Address of the first.
        lba: u64,
        /// Their bytes.
        bytes: Vec<u8>,
    },
    /// Wait until everything written is on the medium.
    Flush,
}

/// A partition to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// Type.
    pub type_guid: Guid,
    /// The partition's own GUID.
    pub guid: Guid,
    /// Name; what exceeds 36 UTF-16 units is left out.
    pub name: &'a str,
    /// First block.
    pub first: u64,
    /// Last block, inclusive.
    pub last: u64,
}

/// The table of a new disk, with its protective MBR: at most 128 partitions, further ones are
/// left out. All bytes depend on the arguments alone.
#[must_use]
pub fn create(disk: Geometry, guid: Guid, parts: &[Part<'_>]) -> Vec<Step> {
    let mut entries = vec![0; ENTRIES * ENTRY_LEN];
    for (bytes, part) in entries.chunks_exact_mut(ENTRY_LEN).zip(parts) {
        put(bytes, 0, &part.type_guid.0);
        put(bytes, 16, &part.guid.0);
        put(bytes, 32, &part.first.to_le_bytes());
        put(bytes, 40, &part.last.to_le_bytes());
        for (i, unit) in part.name.encode_utf16().take(36).enumerate() {
            put(bytes, 56 + 2 * i, &unit.to_le_bytes());
        }
    }
    let array = disk.blocks(entries.len());
    let table = Table {
        disk: guid,
        first_usable: 2 + array,
        last_usable: disk.last_lba - array - 1,
        alternate: disk.last_lba,
        entry_size: ENTRY_LEN,
        entries,
    };
    let mut steps = backup(disk, &table, disk.last_lba);
    steps.extend(primary(disk, &table, disk.last_lba));
    steps.insert(
        0,
        Step::Write {
            lba: 0,
            bytes: mbr::protective(disk),
        },
    );
    steps
}

/// The writes of the backup table whose header is in block `at`.
pub(super) fn backup(disk: Geometry, table: &Table, at: u64) -> Vec<Step> {
    let array = at - disk.blocks(table.entries.len());
    writes(disk, table, at, 1, array)
}

/// The writes of the primary table that names a backup in block `backup`.
pub(super) fn primary(disk: Geometry, table: &Table, backup: u64) -> Vec<Step> {
    writes(disk, table, 1, backup, 2)
}

fn writes(disk: Geometry, table: &Table, my: u64, alternate: u64, array: u64) -> Vec<Step> {
    let mut entries = table.entries.clone();
    entries.resize(entries.len().next_multiple_of(disk.bytes()), 0);
    let mut head = vec![0; disk.bytes()];
    put(&mut head, 0, SIGNATURE);
    put(&mut head, 8, &0x0001_0000u32.to_le_bytes());
    put(&mut head, 12, &(HEADER_LEN as u32).to_le_bytes());
    put(&mut head, 24, &my.to_le_bytes());
    put(&mut head, 32, &alternate.to_le_bytes());
    put(&mut head, 40, &table.first_usable.to_le_bytes());
    put(&mut head, 48, &table.last_usable.to_le_bytes());
    put(&mut head, 56, &table.disk.0);
    put(&mut head, 72, &array.to_le_bytes());
    put(
        &mut head,
        80,
        &((table.entries.len() / table.entry_size) as u32).to_le_bytes(),
    );
    put(&mut head, 84, &(table.entry_size as u32).to_le_bytes());
    put(
        &mut head,
        88,
        &crc32fast::hash(&table.entries).to_le_bytes(),
    );
    let crc = crc32fast::hash(&head[..HEADER_LEN]);
    put(&mut head, 16, &crc.to_le_bytes());
    vec![
        Step::Write {
            lba: array,
            bytes: entries,
        },
        Step::Write {
            lba: my,
            bytes: head,
        },
        Step::Flush,
    ]
}
