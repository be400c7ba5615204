//! The files in the root directory of an ISO 9660 volume (ECMA-119), by their Joliet, Rock Ridge or
//! plain names.
//!
//! Own code: a drive of three files needs its root directory only; the crates that read such volumes
//! are either left alone for years or bring partition tables, calendars and random numbers along. Every
//! length is checked before it is used, and bounded.

use std::str;

/// Reads `len` bytes at an offset; fewer at the end.
pub type ReadAt<'a> = dyn Fn(u64, usize) -> Result<Vec<u8>, String> + 'a;

/// Bytes of a logical sector (6.1.2).
const SECTOR: usize = 2048;
/// Where the volume descriptors begin (6.7.1), in sectors.
const FIRST: u64 = 16;
/// Descriptors that are looked at.
const DESCRIPTORS: u64 = 16;
/// Longest root directory that is read.
const DIRECTORY_MAX: u32 = 256 * 1024;

/// One tree of names.
#[derive(Debug, Clone, Copy)]
struct Tree {
    joliet: bool,
    start: u64,
    len: u32,
}

/// A volume: its label and where its root directories are.
#[derive(Debug)]
pub struct Volume {
    /// The primary descriptor's label, without the spaces that fill it.
    pub label: String,
    trees: Vec<Tree>,
}

/// A record of a directory (9.1).
struct Record<'a> {
    name: &'a [u8],
    system_use: &'a [u8],
    start: u64,
    len: u32,
    flags: u8,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

fn offset(sector: u32, extended: u8) -> u64 {
    (u64::from(sector) + u64::from(extended)) * SECTOR as u64
}

fn record(bytes: &[u8]) -> Option<Record<'_>> {
    let name_len = usize::from(*bytes.get(32)?);
    let name = bytes.get(33..33 + name_len)?;
    // The name's end is padded to an even length (9.1.12).
    let system_use = bytes.get(33 + name_len + (name_len + 1) % 2..);
    Some(Record {
        name,
        system_use: system_use.unwrap_or_default(),
        start: offset(u32_at(bytes, 2)?, *bytes.get(1)?),
        len: u32_at(bytes, 10)?,
        flags: *bytes.get(25)?,
    })
}

/// Reads a volume's descriptors; `None` when it is no ISO 9660 volume.
///
/// # Errors
/// What cannot be read, or is not as it should be.
pub fn open(read: &ReadAt<'_>) -> Result<Option<Volume>, String> {
    let mut label = None;
    let mut trees = vec![];
    for n in FIRST..FIRST + DESCRIPTORS {
        let sector = read(n * SECTOR as u64, SECTOR)?;
        if sector.len() < SECTOR || sector.get(1..6) != Some(b"CD001") {
            break;
        }
        let joliet = match sector[0] {
            1 => false,
            // UCS-2 at one of three levels (Joliet specification, 3.2).
            2 if sector[88..90] == *b"%/" && b"@CE".contains(&sector[90]) => true,
            255 => break,
            _ => continue,
        };
        if sector[128..130] != [0, 8] {
            return Err("its blocks do not have 2048 bytes".into());
        }
        let root = record(&sector[156..190]).ok_or("its root directory is damaged")?;
        if root.len > DIRECTORY_MAX {
            return Err(format!("its root directory has {} bytes", root.len));
        }
        trees.push(Tree {
            joliet,
            start: root.start,
            len: root.len,
        });
        if !joliet {
            let text: String = sector[40..72].iter().map(|b| char::from(*b)).collect();
            label = Some(text.trim_end_matches([' ', '\0']).to_owned());
        }
    }
    // Joliet's names are whole in every record.
    trees.sort_by_key(|tree| !tree.joliet);
    Ok(label.map(|label| Volume { label, trees }))
}

impl Volume {
    /// The content of the root directory's file `name`, at most `max` bytes of it.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn file(
        &self,
        read: &ReadAt<'_>,
        name: &str,
        max: usize,
    ) -> Result<Option<Vec<u8>>, String> {
        for tree in &self.trees {
            let directory = read(tree.start, tree.len as usize)?;
            for sector in directory.chunks(SECTOR) {
                let mut rest = sector;
                while let Some(&len) = rest.first() {
                    // Records do not cross sectors: zeros fill the end of one (6.8.1.1).
                    let Some((bytes, tail)) = rest.split_at_checked(usize::from(len)) else {
                        break;
                    };
                    let Some(found) = record(bytes) else { break };
                    rest = tail;
                    if found.flags & 2 != 0 || !named(&found, tree.joliet, name) {
                        continue;
                    }
                    if found.flags & 0x80 != 0 {
                        return Err(format!("{name} lies in pieces"));
                    }
                    let content = read(found.start, (found.len as usize).min(max))?;
                    if content.len() < (found.len as usize).min(max) {
                        return Err(format!("{name} is cut: the volume ends before it"));
                    }
                    return Ok(Some(content));
                }
            }
        }
        Ok(None)
    }
}

fn named(record: &Record<'_>, joliet: bool, name: &str) -> bool {
    let plain = |bytes: &[u8]| -> Option<String> {
        let text = str::from_utf8(bytes).ok()?;
        let text = text.split(';').next().unwrap_or(text);
        Some(text.trim_end_matches('.').replace('_', "-"))
    };
    let own = if joliet {
        let (pairs, _) = record.name.as_chunks::<2>();
        let text: String = char::decode_utf16(pairs.iter().map(|p| u16::from_be_bytes(*p)))
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
        Some(text.split(';').next().unwrap_or(&text).to_owned())
    } else {
        rock_ridge(record.system_use).or_else(|| plain(record.name))
    };
    own.is_some_and(|own| own.eq_ignore_ascii_case(name))
}

/// The name in the `NM` entries of Rock Ridge (IEEE P1282, 4.1.4), as far as they stand in the record.
fn rock_ridge(system_use: &[u8]) -> Option<String> {
    let mut name: Option<Vec<u8>> = None;
    let mut rest = system_use;
    while let Some(&len) = rest.get(2) {
        let (entry, tail) = rest.split_at_checked(usize::from(len))?;
        if let Some((b"NM", [_, _, _, part @ ..])) = entry.split_at_checked(2) {
            name.get_or_insert_default().extend_from_slice(part);
        }
        if len < 4 {
            break;
        }
        rest = tail;
    }
    String::from_utf8(name?).ok()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads out of memory.
    pub fn of(image: &[u8]) -> impl Fn(u64, usize) -> Result<Vec<u8>, String> + '_ {
        |at, len| {
            assert!(len <= 1 << 20, "{len} bytes at once");
            let from = usize::try_from(at).map_or(image.len(), |at| at.min(image.len()));
            Ok(image[from..from.saturating_add(len).min(image.len())].to_vec())
        }
    }

    pub fn image() -> Vec<u8> {
        holdfast_proxmox::cidata::iso(&[
            ("meta-data", b"instance-id: 1\n"),
            ("network-config", b"version: 1\n"),
            ("user-data", b"version = 1\n"),
        ])
        .unwrap()
    }

    #[test]
    fn files_are_found_by_any_of_their_names() {
        let image = image();
        let read = of(&image);
        let mut volume = open(&read).unwrap().unwrap();
        assert_eq!((volume.label.as_str(), volume.trees.len()), ("cidata", 2));
        for _ in 0..2 {
            let file = |name| volume.file(&read, name, 4096).unwrap();
            assert_eq!(file("user-data").unwrap(), b"version = 1\n");
            assert_eq!(file("network-config").unwrap(), b"version: 1\n");
            assert!(file("vendor-data").is_none());
            assert_eq!(volume.file(&read, "user-data", 3).unwrap().unwrap(), b"ver");
            // The second time without Joliet: Rock Ridge's names.
            volume.trees.retain(|tree| !tree.joliet);
        }
    }

    #[test]
    fn what_is_no_volume_or_ends_early_is_told() {
        assert!(open(&of(&[0; 4096])).unwrap().is_none());
        assert!(open(&of(&vec![0; 1 << 17])).unwrap().is_none());
        let image = image();
        let cut = &image[..image.len() - SECTOR];
        let volume = open(&of(cut)).unwrap().unwrap();
        let error = volume.file(&of(cut), "user-data", 4096).unwrap_err();
        assert!(error.contains("cut"), "{error}");
        let failing = |_: u64, _: usize| Err("EIO".to_owned());
        assert_eq!(open(&failing).unwrap_err(), "EIO");
    }

    proptest! {
        #![proptest_config(crate::seed::fuzz::cases())]
        #[test]
        fn damaged_volumes_are_read_without_a_panic(
            changes in proptest::collection::vec((0usize..64, 0usize..2048, any::<u8>()), 1..40),
            cut in 0usize..80_000,
        ) {
            let mut image = image();
            for (sector, at, byte) in changes {
                // Where descriptors, directories and files are, and not in the empty sectors before.
                let place = (16 + sector % 12) * SECTOR + at % 400;
                if let Some(b) = image.get_mut(place) {
                    *b = byte;
                }
            }
            if cut < image.len() && cut % 4 == 0 {
                image.truncate(cut);
            }
            let read = of(&image);
            if let Ok(Some(volume)) = open(&read) {
                let content = volume.file(&read, "user-data", 4096);
                prop_assert!(content.is_err() || content.unwrap().is_none_or(|c| c.len() <= 4096));
            }
        }
    }
}
