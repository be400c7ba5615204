//! Growing the last partition to the disk's end, and repairing a copy that does not verify.

use super::write::{backup, primary};
use super::{Found, Geometry, Source, Step, Table};
use crate::bytes::put;
use crate::guid::Guid;
use crate::layout::ALIGN;
use alloc::vec::Vec;

/// What to write so that the last partition, if its type is `last`, reaches the disk's end, and
/// both tables verify and agree. Empty: nothing to do.
///
/// The table that was found is never overwritten before the other copy is on the medium: a power
/// cut at any point leaves a table that [`super::find`] finds. Gains of less than 1 MiB are left alone,
/// so that the new backup never overlaps the old one.
#[must_use]
pub fn grow(
    disk: Geometry,
    found: &Found,
    last: Guid,
    mut read: impl FnMut(u64, u64) -> Option<Vec<u8>>,
) -> Vec<Step> {
    let old_end = match found.source {
        Source::Primary => found.table.alternate,
        Source::Backup(lba) => lba,
    };
    let grown = grown(disk, &found.table, old_end, last);
    let end = if grown.is_some() {
        disk.last_lba
    } else {
        old_end
    };
    let table = grown.unwrap_or_else(|| found.table.clone());
    if end <= table.last_usable || end > disk.last_lba {
        // A primary that names no sensible place for its backup: the disk's end is the only one.
        return repaired(disk, &table, disk.last_lba, &mut read);
    }
    repaired(disk, &table, end, &mut read)
}

fn repaired(
    disk: Geometry,
    table: &Table,
    end: u64,
    read: &mut impl FnMut(u64, u64) -> Option<Vec<u8>>,
) -> Vec<Step> {
    let array = disk.blocks(table.entries.len());
    if end
        .checked_sub(array)
        .is_none_or(|first| first <= table.last_usable)
    {
        return Vec::new();
    }
    let mut steps = differing(disk, backup(disk, table, end), read);
    steps.extend(differing(disk, primary(disk, table, end), read));
    steps
}

/// A copy that is as it should be is not touched.
fn differing(
    disk: Geometry,
    steps: Vec<Step>,
    read: &mut impl FnMut(u64, u64) -> Option<Vec<u8>>,
) -> Vec<Step> {
    let same = steps.iter().all(|step| match step {
        Step::Write { lba, bytes } => {
            read(*lba, disk.blocks(bytes.len())).is_some_and(|on_disk| &on_disk == bytes)
        }
        Step::Flush => true,
    });
    if same { Vec::new() } else { steps }
}

fn grown(disk: Geometry, table: &Table, old_end: u64, last: Guid) -> Option<Table> {
    let align = ALIGN / u64::from(disk.block);
    let array = disk.blocks(table.entries.len());
    let last_usable = disk.last_lba.checked_sub(array + 1)?;
    let end = table.entries().max_by_key(|e| e.last)?;
    if disk.last_lba < old_end.checked_add(align)? || end.type_guid != last {
        return None;
    }
    let new_last = ((last_usable + 1) / align * align).checked_sub(1)?;
    if new_last <= end.last {
        return None;
    }
    let mut table = Table {
        last_usable,
        alternate: disk.last_lba,
        ..table.clone()
    };
    let at = end.index * table.entry_size + 40;
    put(&mut table.entries, at, &new_last.to_le_bytes());
    Some(table)
}
