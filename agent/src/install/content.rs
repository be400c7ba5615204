//! What is on a disk, told from its first and last MiB.

use holdfast_core::gpt::{self, Geometry, Source};
use holdfast_core::guid::Guid;
use holdfast_core::layout::Role;

/// How much of either end is looked at, in bytes.
pub const LOOK: usize = 1 << 20;
/// Bytes a block; disks with larger ones are refused before.
pub const BLOCK: usize = 512;
/// First bytes of the block that is written to a disk before anything else; the GUID of the table
/// that the disk is to get follows. No firmware starts from it.
pub const MARK: &[u8; 16] = b"HOLDFAST-INSTALL";

/// What a disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing: zeros, or the ones of erased flash.
    Blank,
    /// An installation that did not come to its end, for the table of this GUID.
    Marked(String),
    /// A whole partition table.
    Table {
        /// The disk's GUID.
        disk: String,
        /// It has a node's partitions.
        holdfast: bool,
    },
    /// Anything else, in words.
    Data(String),
}

/// Signatures: name, offset, bytes. Sources: each format's own documentation, and the tables of
/// `libblkid`'s manual.
const SIGNATURES: [(&str, usize, &[u8]); 21] = [
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("XFS", 0, b"XFSB"),
    ("squashfs", 0, b"hsqs"),
    ("NTFS", 3, b"NTFS    "),
    ("exFAT", 3, b"EXFAT   "),
    ("APFS", 32, b"NXSB"),
    ("FAT", 54, b"FAT1"),
    ("FAT", 82, b"FAT32"),
    ("LVM", 0, b"LABELONE"),
    ("LVM", 512, b"LABELONE"),
    ("LVM", 1024, b"LABELONE"),
    ("LVM", 1536, b"LABELONE"),
    ("F2FS", 1024, b"\x10\x20\xf5\xf2"),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    ("HFS+", 1024, b"H+"),
    ("ext file system", 1080, b"\x53\xef"),
    ("Linux RAID", 4096, b"\xfc\x4e\x2b\xa9"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("ISO 9660", 32_769, b"CD001"),
    ("btrfs", 65_600, b"_BHRfS_M"),
    ("ZFS", 131_072, b"\x0c\xb1\xba\x00"),
];

/// Names what the two ends of a disk of `bytes` hold.
pub fn look(bytes: u64, first: &[u8], last: &[u8]) -> Content {
    let uniform = |end: &[u8], with: u8| end.iter().all(|b| *b == with);
    if [0, 0xff]
        .iter()
        .any(|with| uniform(first, *with) && uniform(last, *with))
    {
        return Content::Blank;
    }
    if let Some(guid) = first.strip_prefix(MARK).and_then(<[u8]>::first_chunk) {
        return Content::Marked(Guid(*guid).to_string());
    }
    let at_end = bytes - last.len() as u64;
    let found = gpt::find(geometry(bytes), |lba, blocks| {
        let at = lba.checked_mul(BLOCK as u64)?;
        let len = usize::try_from(blocks).ok()?.checked_mul(BLOCK)?;
        let slice = |end: &[u8], from: u64| {
            let from = usize::try_from(from).ok()?;
            Some(end.get(from..from.checked_add(len)?)?.to_vec())
        };
        slice(first, at).or_else(|| slice(last, at.checked_sub(at_end)?))
    });
    let mut names: Vec<&str> = Vec::new();
    if let Ok(found) = found {
        let holdfast = found.table.role(Role::Slots).is_some();
        if found.source == Source::Primary {
            return Content::Table {
                disk: found.table.disk.to_string(),
                holdfast,
            };
        }
        names.push(if holdfast {
            "the backup table of a Holdfast installation"
        } else {
            "the backup of a GPT"
        });
    } else if first.get(BLOCK..BLOCK + 8) == Some(b"EFI PART") {
        names.push("a damaged GPT");
    }
    for (name, at, bytes) in SIGNATURES {
        if first.get(at..).is_some_and(|b| b.starts_with(bytes)) && !names.contains(&name) {
            names.push(name);
        }
    }
    // Four entries of 16 bytes from 446 on, then the mark; the type is an entry's fifth byte.
    let entries = first.get(446..510).unwrap_or_default();
    if names.is_empty()
        && first.get(510..512) == Some(b"\x55\xaa")
        && entries
            .chunks(16)
            .any(|e| e.get(4).is_some_and(|t| *t != 0))
    {
        names.push("a partition table (MBR)");
    }
    if names.is_empty() {
        names.push("bytes of no format that is known here");
    }
    Content::Data(names.join(", "))
}

/// A disk's measures.
pub fn geometry(bytes: u64) -> Geometry {
    Geometry {
        block: BLOCK as u32,
        last_lba: (bytes / BLOCK as u64).saturating_sub(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::gpt::{Part, Step};
    use proptest::prelude::*;

    const BYTES: u64 = 4 << 20;

    fn with(at: usize, bytes: &[u8]) -> Content {
        let mut first = vec![0; LOOK];
        first[at..at + bytes.len()].copy_from_slice(bytes);
        look(BYTES, &first, &vec![0; LOOK])
    }

    fn table(role: Role) -> Vec<u8> {
        let part = Part {
            type_guid: role.type_guid(),
            guid: Guid::random([4; 16]),
            name: role.name(),
            first: 2048,
            last: 4095,
        };
        let mut disk = vec![0; BYTES as usize];
        for step in gpt::create(geometry(BYTES), Guid::random([9; 16]), &[part]) {
            if let Step::Write { lba, bytes } = step {
                disk[lba as usize * BLOCK..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
        disk
    }

    fn ends(disk: &[u8]) -> Content {
        look(BYTES, &disk[..LOOK], &disk[disk.len() - LOOK..])
    }

    #[test]
    fn nothing_is_told_from_something() {
        assert_eq!(ends(&vec![0; BYTES as usize]), Content::Blank);
        assert_eq!(ends(&vec![0xff; BYTES as usize]), Content::Blank);
        for (name, at, bytes) in SIGNATURES {
            let Content::Data(words) = with(at, bytes) else {
                panic!("{name}")
            };
            assert!(words.contains(name), "{name}: {words}");
        }
        let Content::Data(words) = with(700_000, b"x") else {
            panic!()
        };
        assert!(words.contains("no format"), "{words}");
        let mut last = vec![0; BYTES as usize];
        last[BYTES as usize - 5] = 1;
        assert!(matches!(ends(&last), Content::Data(_)));
    }

    #[test]
    fn tables_are_named_with_their_owner() {
        let guid = Guid::random([9; 16]).to_string();
        let mut disk = table(Role::Slots);
        let ours = Content::Table {
            disk: guid.clone(),
            holdfast: true,
        };
        assert_eq!(ends(&disk), ours);
        assert_eq!(
            ends(&table(Role::Esp)),
            Content::Table {
                disk: guid,
                holdfast: false
            }
        );
        // Only the backup is left: what was it?
        disk[BLOCK..2 * BLOCK].fill(0);
        assert!(matches!(ends(&disk), Content::Data(words) if words.contains("Holdfast")));
        // An installation's mark counts before any table.
        disk[..16].copy_from_slice(MARK);
        disk[16..32].copy_from_slice(&[7; 16]);
        assert_eq!(ends(&disk), Content::Marked(Guid([7; 16]).to_string()));
        let mbr = |t: u8| {
            let mut block = [0; BLOCK];
            block[450] = t;
            block[510..].copy_from_slice(b"\x55\xaa");
            with(0, &block)
        };
        assert!(matches!(mbr(0x83), Content::Data(words) if words.contains("MBR")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_are_data_or_a_table(at in 0usize..LOOK, bytes in prop::collection::vec(any::<u8>(), 1..600), end: bool) {
            let mut disk = if end { table(Role::Slots) } else { vec![0; BYTES as usize] };
            let from = if end { disk.len() - LOOK + at } else { at };
            let n = bytes.len().min(disk.len() - from);
            disk[from..from + n].copy_from_slice(&bytes[..n]);
            let blank = disk.iter().all(|b| *b == 0);
            prop_assert_eq!(ends(&disk) == Content::Blank, blank);
        }
    }
}
