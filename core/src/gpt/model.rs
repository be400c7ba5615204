//! Growing and repairing on a disk that loses power: after every prefix of the writes, torn in
//! any of their blocks, there is a table, and doing it again ends at the same place.

use super::*;
use crate::layout::{ALIGN, VAR_MIN, plan};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A sparse disk: blocks never written read as zero.
#[derive(Clone)]
struct Disk {
    geometry: Geometry,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Disk {
    fn new(block: u32, spare: u64) -> Self {
        let (extents, len) = plan(VAR_MIN);
        let lbas = |bytes: u64| bytes / u64::from(block);
        let geometry = Geometry {
            block,
            last_lba: lbas(len) - 1,
        };
        let guid = |n: u8| Guid::random([n; 16]);
        let parts = extents.map(|e| Part {
            type_guid: e.role.type_guid(),
            guid: guid(e.offset as u8),
            name: e.role.name(),
            first: lbas(e.offset),
            last: lbas(e.offset + e.len) - 1,
        });
        let mut disk = Self {
            geometry,
            blocks: BTreeMap::new(),
        };
        create(geometry, guid(1), &parts)
            .iter()
            .for_each(|s| disk.step(s, u64::MAX));
        disk.geometry.last_lba += lbas(spare);
        disk
    }

    fn read(&self, lba: u64, count: u64) -> Option<Vec<u8>> {
        let block = self.geometry.bytes();
        let blocks = (lba..lba + count).map(|at| {
            assert!(at <= self.geometry.last_lba, "reads beyond the disk");
            self.blocks
                .get(&at)
                .cloned()
                .unwrap_or_else(|| vec![0; block])
        });
        Some(blocks.collect::<Vec<_>>().concat())
    }

    /// Takes a step, of a write only the blocks whose bit is set.
    fn step(&mut self, step: &Step, mask: u64) {
        let Step::Write { lba, bytes } = step else {
            return;
        };
        assert!(bytes.len().is_multiple_of(self.geometry.bytes()));
        for (i, block) in bytes.chunks_exact(self.geometry.bytes()).enumerate() {
            assert!(
                lba + i as u64 <= self.geometry.last_lba,
                "writes beyond the disk"
            );
            if mask & (1 << (i % 64)) != 0 {
                self.blocks.insert(lba + i as u64, block.to_vec());
            }
        }
    }

    fn find(&self) -> Result<Found, [GptError; 2]> {
        find(self.geometry, |lba, count| self.read(lba, count))
    }

    fn plan(&self) -> Vec<Step> {
        let found = self.find().unwrap();
        grow(
            self.geometry,
            &found,
            Role::Var.type_guid(),
            |lba, count| self.read(lba, count),
        )
    }

    fn grown(mut self) -> Self {
        for step in self.plan() {
            self.step(&step, u64::MAX);
        }
        self
    }

    /// Where `hf-var` ends when it is as large as whole MiB and the backup table allow.
    fn var_end(&self) -> u64 {
        let block = u64::from(self.geometry.block);
        let free = (self.geometry.last_lba + 1) * block - (16384 + block);
        free / ALIGN * ALIGN / block - 1
    }

    fn var(&self) -> Entry {
        self.find().unwrap().table.role(Role::Var).unwrap()
    }

    fn flip(&mut self, lba: u64, at: usize) {
        let block = self.geometry.bytes();
        self.blocks.entry(lba).or_insert_with(|| vec![0; block])[at] ^= 1;
    }
}

#[test]
fn a_new_disk_reads_back() {
    for block in [512, 4096] {
        let disk = Disk::new(block, 0);
        let found = disk.find().unwrap();
        assert_eq!((found.source, found.primary), (Source::Primary, None));
        assert_eq!(found.table.entries().count(), Role::ALL.len());
        for role in Role::ALL {
            let entry = found.table.role(role).unwrap();
            assert_eq!(
                (entry.last - entry.first + 1) * u64::from(block),
                role.size()
            );
        }
        assert_eq!(disk.plan(), []);
        assert_eq!(disk.read(0, 1).unwrap()[510..512], [0x55, 0xaa]);
    }
}

#[test]
fn the_last_partition_reaches_the_end() {
    for block in [512, 4096] {
        let spare = 64 * ALIGN + 5 * 4096;
        let before = Disk::new(block, spare);
        let after = before.clone().grown();
        let found = after.find().unwrap();
        assert_eq!(after.var().last, before.var_end());
        assert!(found.table.last_usable < after.geometry.last_lba);
        assert_eq!(after.plan(), []);
        assert_eq!(
            found.table.role(Role::Esp),
            before.find().unwrap().table.role(Role::Esp)
        );
    }
}

#[test]
fn a_gain_of_less_than_a_mebibyte_and_foreign_ends_are_left_alone() {
    assert_eq!(Disk::new(512, ALIGN - 512).plan(), []);
    let disk = Disk::new(512, 8 * ALIGN);
    let found = disk.find().unwrap();
    assert_eq!(
        grow(disk.geometry, &found, Role::Esp.type_guid(), |l, c| disk
            .read(l, c)),
        []
    );
}

#[test]
fn every_damage_to_one_copy_is_read_and_repaired() {
    for (lba, at) in [(1, 40), (1, 0), (2, 32), (9, 100)] {
        let mut disk = Disk::new(512, 0);
        let whole = disk.clone();
        disk.flip(lba, at);
        let found = disk.find().unwrap();
        // Block 9 lies in the entries that are not used: still covered by the checksum.
        assert_eq!(
            found.source,
            Source::Backup(disk.geometry.last_lba),
            "{lba} {at}"
        );
        assert_eq!(disk.grown().blocks, whole.blocks);

        let mut disk = whole.clone();
        disk.flip(disk.geometry.last_lba + 1 - lba, at);
        assert_eq!(disk.find().unwrap().source, Source::Primary);
        assert_eq!(disk.grown().blocks, whole.blocks);
    }
}

#[test]
fn a_grown_disk_with_damaged_entries_finds_its_old_backup() {
    let mut disk = Disk::new(512, 64 * ALIGN);
    let old_end = disk.geometry.last_lba - 64 * ALIGN / 512;
    disk.flip(2, 40);
    assert_eq!(disk.find().unwrap().source, Source::Backup(old_end));
    let grown = disk.grown();
    assert_eq!(grown.find().unwrap().source, Source::Primary);
    assert_eq!(
        grown.var().last,
        Disk::new(512, 64 * ALIGN).grown().var().last
    );
}

#[test]
fn both_damaged_is_said_and_nonsense_is_refused() {
    let mut disk = Disk::new(512, 0);
    let end = disk.geometry.last_lba;
    disk.flip(1, 40);
    disk.flip(end, 0);
    assert_eq!(
        disk.find(),
        Err([GptError::BadHeader(1), GptError::NoHeader(end)])
    );
    let small = Geometry {
        block: 512,
        last_lba: 5000,
    };
    let found = find(small, |lba, count| {
        (lba + count <= 5001).then(|| disk.read(lba, count))?
    });
    assert!(found.is_err());
    assert_eq!(
        find(small, |_, _| None),
        Err([GptError::Unreadable(1), GptError::Unreadable(5000)])
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_power_cut_anywhere_leaves_a_table_and_growing_goes_on(
        large in any::<bool>(),
        spare in 0u64..3000,
        damage in proptest::option::of((any::<bool>(), 0usize..512)),
        cuts in proptest::collection::vec((0usize..6, any::<u64>()), 0..4),
    ) {
        let block = if large { 4096 } else { 512 };
        let spare = spare * 4096;
        let mut disk = Disk::new(block, spare);
        let fresh = disk.clone();
        if let Some((primary_header, at)) = damage {
            disk.flip(if primary_header { 1 } else { 2 }, at);
        }
        // A disk that grew while its primary header was damaged has lost its backup, too.
        prop_assume!(disk.find().is_ok());
        for (steps, mask) in cuts {
            let plan = disk.plan();
            for (i, step) in plan.iter().take(steps + 1).enumerate() {
                disk.step(step, if i == steps { mask } else { u64::MAX });
                prop_assert!(disk.find().is_ok(), "no table after step {i} of {}", plan.len());
            }
        }
        let done = disk.grown();
        prop_assert_eq!(done.plan(), []);
        let end = if spare < ALIGN { fresh.var().last } else { fresh.var_end() };
        prop_assert_eq!(done.var().last, end);
        prop_assert_eq!(done.find().unwrap().source, Source::Primary);
    }

    #[test]
    fn arbitrary_blocks_never_break_the_reader(
        head in proptest::collection::vec(any::<u8>(), 92),
        fix in any::<bool>(),
    ) {
        let mut block = head;
        block.resize(512, 0);
        if fix {
            block[..8].copy_from_slice(b"EFI PART");
            block[12..16].copy_from_slice(&92u32.to_le_bytes());
            block[16..20].fill(0);
            block[24..32].copy_from_slice(&1u64.to_le_bytes());
            let crc = crc32fast::hash(&block[..92]);
            block[16..20].copy_from_slice(&crc.to_le_bytes());
        }
        let disk = Geometry { block: 512, last_lba: 10_000 };
        let found = find(disk, |lba, n| {
            if lba == 1 { Some(block.clone()) } else { Some(vec![0; 512 * n as usize]) }
        });
        prop_assert!(found.is_err());
    }
}

#[test]
fn a_table_whose_backup_has_no_room_is_left_alone() {
    let geometry = Geometry {
        block: 512,
        last_lba: 20,
    };
    let found = Found {
        table: Table {
            disk: Guid::NIL,
            first_usable: 2,
            last_usable: 10,
            alternate: 15,
            entry_size: 128,
            entries: alloc::vec![0; 128 * 128],
        },
        source: Source::Primary,
        primary: None,
    };
    let steps = super::grow(geometry, &found, Guid::NIL, |_, _| None);
    assert_eq!(steps, []);
}

#[test]
fn a_copied_table_gets_guids_of_its_own() {
    for (block, spare) in [(512, 0), (512, 64 << 20), (4096, 8 << 20)] {
        let mut disk = Disk::new(block, spare);
        let old = disk.find().unwrap().table;
        let mut n = 100;
        let new = old.renewed(|| {
            n += 1;
            Guid::random([n; 16])
        });
        assert_eq!(usize::from(n) - 100, 1 + Role::ALL.len());
        let mbr = disk.read(0, 1);
        for step in rewrite(disk.geometry, &new) {
            disk.step(&step, u64::MAX);
        }
        assert_eq!(disk.read(0, 1), mbr);
        assert_eq!(disk.find().unwrap().table, new);
        assert_eq!(new.disk, Guid::random([101; 16]));
        for (old, new) in old.entries().zip(new.entries()) {
            assert_ne!(old.guid, new.guid);
            assert_eq!(
                Entry {
                    guid: old.guid,
                    ..new
                },
                old
            );
        }
        disk.flip(2, 20);
        let found = disk.find().unwrap();
        assert_eq!(found.source, Source::Backup(old.alternate()));
        assert!(found.table.entries().eq(new.entries()));
        let nowhere = Table {
            alternate: 3,
            ..new
        };
        assert!(rewrite(disk.geometry, &nowhere).is_empty());
    }
}
