//! New GUIDs for a table that was copied from an image: two disks must never claim one identity.

use super::write::{backup, primary};
use super::{Geometry, Step, Table};
use crate::bytes::put;
use crate::guid::Guid;
use alloc::vec::Vec;

impl Table {
    /// The same table under GUIDs that `fresh` gives: first the disk's, then every used entry's in
    /// the table's order. Types, names, places and what others wrote into entries stay.
    #[must_use]
    pub fn renewed(&self, mut fresh: impl FnMut() -> Guid) -> Self {
        let mut table = Self {
            disk: fresh(),
            ..self.clone()
        };
        for entry in self.entries() {
            let at = entry.index * self.entry_size + 16;
            put(&mut table.entries, at, &fresh().0);
        }
        table
    }

    /// Where the other copy's header lies: of a primary table the backup's, which is the last
    /// block of the disk that the table was made for.
    #[must_use]
    pub const fn alternate(&self) -> u64 {
        self.alternate
    }
}

/// What to write so that both copies are `table`, a primary one, with the backup where it says.
/// Block 0 is left as it is: on some boards it holds more than a protective MBR. Empty when the
/// table names no place beyond its partitions for the backup.
#[must_use]
pub fn rewrite(disk: Geometry, table: &Table) -> Vec<Step> {
    let at = table.alternate;
    let array = disk.blocks(table.entries.len());
    if at
        .checked_sub(array)
        .is_none_or(|first| first <= table.last_usable)
        || at > disk.last_lba
    {
        return Vec::new();
    }
    let mut steps = backup(disk, table, at);
    steps.extend(primary(disk, table, at));
    steps
}
