//! What lies on a disk, in the words of someone who is asked whether it may go.

use holdfast_core::gpt::{self, Geometry};
use holdfast_core::guid::Guid;
use holdfast_core::layout::Role;

/// How much of the beginning is looked at, in bytes.
const LOOK: u64 = 1 << 20;

/// What is on a disk of `bytes` bytes. `read` gives that many bytes from an offset, or `None`.
#[must_use]
pub fn describe(
    bytes: u64,
    sector: u32,
    mut read: impl FnMut(u64, usize) -> Option<Vec<u8>>,
) -> String {
    let size = u64::from(sector.clamp(512, 4096));
    let Some(head) = read(0, LOOK.min(bytes) as usize) else {
        return "cannot be read".into();
    };
    let geometry = Geometry {
        block: size as u32,
        last_lba: (bytes / size).saturating_sub(1),
    };
    let table = gpt::find(geometry, |lba, count| {
        let offset = lba.checked_mul(size)?;
        let len = count.checked_mul(size)?;
        offset.checked_add(len).filter(|end| *end <= bytes)?;
        read(offset, usize::try_from(len).ok()?)
    });
    if let Ok(found) = table {
        let ours = found.table.role(Role::Slots).is_some();
        let parts: Vec<String> = found
            .table
            .entries()
            .map(|e| {
                let what = read(
                    e.first * size,
                    LOOK.min((e.last - e.first + 1) * size) as usize,
                )
                .and_then(|b| file_system(&b));
                let name = match e.name.as_str() {
                    "" => "unnamed",
                    name => name,
                };
                match what {
                    Some(what) if e.type_guid != Guid::NIL => format!("{name} ({what})"),
                    _ => name.to_owned(),
                }
            })
            .collect();
        return match (ours, parts.len()) {
            (true, _) => "a Holdfast system".into(),
            (false, 0) => "an empty partition table".into(),
            (false, n) => format!("{n} partition(s): {}", parts.join(", ")),
        };
    }
    if let Some(what) = file_system(&head) {
        return what;
    }
    let parts = mbr(&head);
    if !parts.is_empty() {
        let words: Vec<_> = parts
            .iter()
            .map(|(kind, first)| {
                let len = LOOK.min(bytes.saturating_sub(first * size)) as usize;
                read(first * size, len)
                    .and_then(|b| file_system(&b))
                    .unwrap_or_else(|| format!("type {kind:02x}"))
            })
            .collect();
        return format!("{} partition(s): {}", parts.len(), words.join(", "));
    }
    if head.iter().all(|b| *b == 0) {
        return "nothing in its first MiB".into();
    }
    "data of a kind that is not known here".into()
}

/// Types and first sectors of an MBR's entries.
fn mbr(head: &[u8]) -> Vec<(u8, u64)> {
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
        return Vec::new();
    }
    (0..4)
        .filter_map(|i| head.get(446 + 16 * i..462 + 16 * i))
        .filter(|e| e[4] != 0 && (e[0] == 0 || e[0] == 0x80))
        .map(|e| {
            (
                e[4],
                u64::from(u32::from_le_bytes([e[8], e[9], e[10], e[11]])),
            )
        })
        .filter(|(_, first)| *first > 0)
        .collect()
}

fn label(bytes: Option<&[u8]>) -> String {
    let text = String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let text = text.split('\0').next().unwrap_or_default().trim();
    match text {
        "" | "NO NAME" => String::new(),
        text => format!(" {text:?}"),
    }
}

/// The file system (or container) that begins here, with its label, by the signatures that
/// blkid(8) knows.
#[must_use]
pub fn file_system(b: &[u8]) -> Option<String> {
    let is = |at: usize, magic: &[u8]| b.get(at..at + magic.len()) == Some(magic);
    let named = |kind: &str, from: usize, to: usize| format!("{kind}{}", label(b.get(from..to)));
    let plain = [
        (0, &b"LUKS\xba\xbe"[..], "an encrypted volume"),
        (3, b"NTFS    ", "NTFS"),
        (3, b"EXFAT   ", "exFAT"),
        (0, b"XFSB", "XFS"),
        (0, b"hsqs", "squashfs"),
        (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
        (1024, b"\x10\x20\xf5\xf2", "F2FS"),
        (0x8001, b"CD001", "a CD image"),
        (512, b"LABELONE", "an LVM volume"),
        (4096, b"\xfc\x4e\x2b\xa9", "a RAID member"),
        (4086, b"SWAPSPACE2", "swap"),
    ];
    if is(0x438, b"\x53\xef") {
        return Some(named("ext4", 0x478, 0x488));
    }
    if is(0x1_0040, b"_BHRfS_M") {
        return Some(named("btrfs", 0x1_012b, 0x1_012b + 256));
    }
    if is(510, b"\x55\xaa") && is(82, b"FAT32") {
        return Some(named("FAT", 71, 82));
    }
    if is(510, b"\x55\xaa") && is(54, b"FAT1") {
        return Some(named("FAT", 43, 54));
    }
    plain
        .iter()
        .find(|(at, magic, _)| is(*at, magic))
        .map(|(.., words)| (*words).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::gpt::{Part, Step, create};
    use holdfast_core::layout;
    use proptest::prelude::*;

    fn of(bytes: &[u8]) -> String {
        describe(bytes.len() as u64, 512, |at, len| {
            Some(bytes[at as usize..at as usize + len].to_vec())
        })
    }

    fn with_table(names: &[(&str, Guid)]) -> Vec<u8> {
        let mut disk = vec![0; 8 << 20];
        let parts: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(i, (name, type_guid))| Part {
                type_guid: *type_guid,
                guid: Guid::random([i as u8; 16]),
                name,
                first: 2048 * (i as u64 + 1),
                last: 2048 * (i as u64 + 2) - 1,
            })
            .collect();
        let geometry = Geometry {
            block: 512,
            last_lba: (8 << 11) - 1,
        };
        for step in create(geometry, Guid::random([9; 16]), &parts) {
            if let Step::Write { lba, bytes } = step {
                let at = lba as usize * 512;
                disk[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        disk
    }

    #[test]
    fn what_people_keep_on_sticks_is_named() {
        assert_eq!(of(&vec![0; 2 << 20]), "nothing in its first MiB");
        assert_eq!(
            of(&vec![7; 2 << 20]),
            "data of a kind that is not known here"
        );
        let data = Guid::from_u128(0xebd0a0a2_b9e5_4433_87c0_68b6b72699c7);
        let mut disk = with_table(&[("photos", data), ("", data)]);
        let at = 1 << 20;
        disk[at + 0x438..at + 0x43a].copy_from_slice(b"\x53\xef");
        disk[at + 0x478..at + 0x47e].copy_from_slice(b"summer");
        assert_eq!(
            of(&disk),
            "2 partition(s): photos (ext4 \"summer\"), unnamed"
        );
        let slots = layout::Role::Slots;
        let ours = with_table(&[(slots.name(), slots.type_guid())]);
        assert_eq!(of(&ours), "a Holdfast system");
        // A camera's card: an MBR, one FAT.
        let mut card = vec![0u8; 4 << 20];
        card[510..512].copy_from_slice(b"\x55\xaa");
        card[446 + 4] = 0x0c;
        card[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
        card[at + 510..at + 512].copy_from_slice(b"\x55\xaa");
        card[at + 82..at + 87].copy_from_slice(b"FAT32");
        card[at + 71..at + 82].copy_from_slice(b"CANON      ");
        assert_eq!(of(&card), "1 partition(s): FAT \"CANON\"");
        assert_eq!(describe(1 << 20, 512, |_, _| None), "cannot be read");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_disk_breaks_it(
            seed in prop::collection::vec((0usize..0x1_0200, any::<u8>()), 0..200),
            len in 0usize..0x1_0400,
            mbr in any::<bool>(),
        ) {
            let mut disk = vec![0u8; len];
            for (at, byte) in seed {
                if let Some(b) = disk.get_mut(at) { *b = byte; }
            }
            if mbr && len >= 512 { disk[510..512].copy_from_slice(b"\x55\xaa"); }
            let _ = describe(len as u64, 512, |at, len| {
                disk.get(usize::try_from(at).ok()?..usize::try_from(at).ok()?.checked_add(len)?).map(<[u8]>::to_vec)
            });
        }
    }
}
