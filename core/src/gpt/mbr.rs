//! What lies in block 0 of a disk with a GPT.

use super::Geometry;
use crate::bytes::put;
use crate::layout::{Extent, Role};
use alloc::vec;
use alloc::vec::Vec;

/// One FAT volume that the MBR names too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FatPart {
    /// First block.
    pub first: u64,
    /// Last block, inclusive.
    pub last: u64,
    /// FAT32 (type 0x0c); otherwise FAT16 (type 0x0e).
    pub fat32: bool,
}

/// The layout's FAT volumes, the one that firmware reads first.
#[must_use]
pub fn fat_parts(disk: Geometry, extents: &[Extent]) -> Vec<FatPart> {
    let block = u64::from(disk.block);
    let fats = extents
        .iter()
        .filter(|e| matches!(e.role, Role::Esp | Role::Seed));
    fats.map(|e| FatPart {
        first: e.offset / block,
        last: (e.offset + e.len) / block - 1,
        fat32: e.role == Role::Esp,
    })
    .collect()
}

/// Whether block 0 is an MBR that names more than the table, as [`hybrid`] makes it.
#[must_use]
pub fn is_hybrid(block: &[u8]) -> bool {
    let kinds = (0..4).filter_map(|i| block.get(446 + 16 * i + 4));
    block.get(510..512) == Some(&[0x55, 0xaa]) && kinds.into_iter().any(|k| !matches!(k, 0 | 0xee))
}

/// The protective MBR of UEFI 2.10, 5.2.3. The size is "unknown", which stays true when the disk
/// grows.
#[must_use]
pub fn protective(disk: Geometry) -> Vec<u8> {
    mbr(disk, &[entry(0xee, 1, u32::MAX)])
}

/// An MBR that names up to three FAT volumes beside the table itself: for the boot ROM of a
/// Raspberry Pi 3, which knows no GPT, and for systems that read the MBR where it names more than
/// the table. Never names anything that grows, so that growing leaves it alone. The entry for the
/// table starts in block 1, by which Linux and U-Boot know that a GPT follows.
#[must_use]
pub fn hybrid(disk: Geometry, fats: &[FatPart]) -> Vec<u8> {
    let short = |lba: u64| u32::try_from(lba).unwrap_or(u32::MAX);
    let mut entries: Vec<[u8; 16]> = fats
        .iter()
        .take(3)
        .map(|fat| {
            let kind = if fat.fat32 { 0x0c } else { 0x0e };
            entry(kind, short(fat.first), short(fat.last - fat.first + 1))
        })
        .collect();
    let first = fats.iter().map(|fat| fat.first).min().unwrap_or(2);
    entries.push(entry(0xee, 1, short(first.saturating_sub(1))));
    mbr(disk, &entries)
}

fn entry(kind: u8, first: u32, blocks: u32) -> [u8; 16] {
    let mut entry = [0; 16];
    // Cylinders are of the past: the values that say "look at the block numbers".
    entry[1..4].copy_from_slice(if first == 1 {
        &[0, 2, 0]
    } else {
        &[0xfe, 0xff, 0xff]
    });
    entry[4] = kind;
    entry[5..8].fill(0xff);
    entry[8..12].copy_from_slice(&first.to_le_bytes());
    entry[12..16].copy_from_slice(&blocks.to_le_bytes());
    entry
}

fn mbr(disk: Geometry, entries: &[[u8; 16]]) -> Vec<u8> {
    let mut mbr = vec![0; disk.bytes()];
    for (i, entry) in entries.iter().enumerate() {
        put(&mut mbr, 446 + 16 * i, entry);
    }
    put(&mut mbr, 510, &[0x55, 0xaa]);
    mbr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_names_fat_volumes_first_and_the_table_in_block_one() {
        let disk = Geometry {
            block: 512,
            last_lba: 1 << 24,
        };
        let fat = |first, last, fat32| FatPart { first, last, fat32 };
        let mbr = hybrid(
            disk,
            &[fat(2048, 133_119, true), fat(202_752, 235_519, false)],
        );
        let at = |i: usize| &mbr[446 + 16 * i..462 + 16 * i];
        assert_eq!(
            (at(0)[4], &at(0)[8..12]),
            (0x0c, &2048u32.to_le_bytes()[..])
        );
        assert_eq!(at(0)[12..16], 131_072u32.to_le_bytes());
        assert_eq!(at(1)[4], 0x0e);
        assert_eq!((at(2)[4], &at(2)[8..12]), (0xee, &1u32.to_le_bytes()[..]));
        assert_eq!(at(2)[12..16], 2047u32.to_le_bytes());
        assert_eq!(at(3), [0; 16]);
        assert_eq!(mbr[510..512], [0x55, 0xaa]);
        assert!(is_hybrid(&mbr) && !is_hybrid(&protective(disk)));
        assert!(!is_hybrid(&[0; 512]) && !is_hybrid(&[]));
        assert_eq!(
            protective(disk)[446..462],
            [
                0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff
            ]
        );
    }
}
