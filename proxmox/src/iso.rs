//! A small writer of ISO 9660 volumes: one directory, files of any length.
//!
//! ECMA-119 (4th edition) level 1 names, and each file's own name twice: in a Joliet tree (Microsoft's
//! supplementary descriptor with UCS-2 names) and by Rock Ridge (IEEE P1282) in the plain one. Times
//! are fixed, so that the same files give the same bytes.
//!
//! Own code: the one kept crate that writes such volumes brings two dozen others and the day's date.
//!
//! | sector | what |
//! |---|---|
//! | 0 | system area, empty |
//! | 16, 17, 18 | primary descriptor, Joliet's, the end of descriptors |
//! | 19, 20 | path tables of the plain tree, little and big endian |
//! | 21, 22 | those of the Joliet tree |
//! | 23 | plain directory, Joliet directory, files |

/// Bytes of a logical sector and block (ECMA-119, 6.1.2 and 6.2.2).
pub const SECTOR: usize = 2048;
/// Longest file name: Joliet's limit, in UCS-2 characters.
const LONGEST_NAME: usize = 64;
/// Longest label: 16 characters of UCS-2 in the descriptor's 32 bytes.
const LONGEST_LABEL: usize = 16;

const PRIMARY: u32 = 16;
const FIRST_DIRECTORY: u32 = 23;
/// 2000-01-01 00:00:00 UTC as a directory record has it (ECMA-119, 9.1.5).
const DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];

/// Why no volume was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsoError {
    /// The label.
    #[error(
        "volume label {0:?} is empty, longer than {LONGEST_LABEL} characters, or holds others than a-z, A-Z, 0-9, '-' and '_'"
    )]
    Label(String),
    /// A file's name.
    #[error(
        "file name {0:?} is empty, longer than {LONGEST_NAME} characters, or holds others than a-z, A-Z, 0-9, '-', '_' and '.'"
    )]
    Name(String),
    /// Two files of one name.
    #[error("two files are called {0:?}")]
    Twice(String),
    /// More than a volume's 32-bit numbers can say.
    #[error("file {name:?} of {len} bytes is too long for the volume")]
    TooLong {
        /// Its name.
        name: String,
        /// Its length.
        len: usize,
    },
}

/// One of the two directory trees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tree {
    Plain,
    Joliet,
}

struct Placed<'a> {
    name: &'a str,
    sector: u32,
    len: u32,
}

fn plain_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// The volume's bytes: `label`, and `files` by name and content.
///
/// # Errors
/// [`IsoError`] names what cannot stand on such a volume.
pub fn image(label: &str, files: &[(&str, &[u8])]) -> Result<Vec<u8>, IsoError> {
    if label.is_empty() || label.len() > LONGEST_LABEL || !label.chars().all(plain_character) {
        return Err(IsoError::Label(label.into()));
    }
    let mut sorted = files.to_vec();
    sorted.sort_by_key(|&(name, _)| name);
    for (i, (name, _)) in sorted.iter().enumerate() {
        let fits = |c| plain_character(c) || c == '.';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
            return Err(IsoError::Name((*name).into()));
        }
        if i > 0 && sorted[i - 1].0 == *name {
            return Err(IsoError::Twice((*name).into()));
        }
    }

    // How long a directory is does not hang on where things stand.
    let nowhere: Vec<Placed<'_>> = sorted
        .iter()
        .map(|&(name, _)| Placed {
            name,
            sector: 0,
            len: 0,
        })
        .collect();
    let plain_len = sectors(directory(Tree::Plain, 0, 0, &nowhere).len());
    let joliet_len = sectors(directory(Tree::Joliet, 0, 0, &nowhere).len());
    let joliet_at = FIRST_DIRECTORY + plain_len;
    let mut next = joliet_at + joliet_len;
    let mut placed = vec![];
    for &(name, content) in &sorted {
        let too_long = || IsoError::TooLong {
            name: name.into(),
            len: content.len(),
        };
        let len = u32::try_from(content.len()).map_err(|_| too_long())?;
        placed.push(Placed {
            name,
            sector: next,
            len,
        });
        next = next
            .checked_add(sectors(content.len()))
            .ok_or_else(too_long)?;
    }

    let mut out = vec![0; PRIMARY as usize * SECTOR];
    for (tree, at, len) in [
        (Tree::Plain, FIRST_DIRECTORY, plain_len),
        (Tree::Joliet, joliet_at, joliet_len),
    ] {
        out.extend(descriptor(tree, label, next, at, len));
    }
    // The end of descriptors (ECMA-119, 8.3).
    out.extend(b"\xffCD001\x01");
    pad(&mut out);
    for at in [FIRST_DIRECTORY, joliet_at] {
        // The root's only entry (ECMA-119, 9.4): name of one byte, no extended attributes, parent 1.
        for place in [at.to_le_bytes(), at.to_be_bytes()] {
            let parent: [u8; 2] = if place == at.to_le_bytes() {
                [1, 0]
            } else {
                [0, 1]
            };
            out.extend([1, 0]);
            out.extend(place);
            out.extend(parent);
            out.extend([0, 0]);
            pad(&mut out);
        }
    }
    out.extend(directory(Tree::Plain, FIRST_DIRECTORY, plain_len, &placed));
    pad(&mut out);
    out.extend(directory(Tree::Joliet, joliet_at, joliet_len, &placed));
    pad(&mut out);
    for (_, content) in &sorted {
        out.extend_from_slice(content);
        pad(&mut out);
    }
    Ok(out)
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "callers hold lengths below 4 GiB"
)]
fn sectors(len: usize) -> u32 {
    len.div_ceil(SECTOR) as u32
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(SECTOR), 0);
}

fn both32(n: u32) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&n.to_le_bytes());
    out[4..].copy_from_slice(&n.to_be_bytes());
    out
}

fn both16(n: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (n.to_le_bytes(), n.to_be_bytes());
    [a, b, c, d]
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// `text` in a field of `len` bytes, filled with spaces.
fn field(tree: Tree, text: &str, len: usize) -> Vec<u8> {
    let (mut out, space): (Vec<u8>, &[u8]) = match tree {
        Tree::Plain => (text.into(), b" "),
        Tree::Joliet => (ucs2(text), b"\0 "),
    };
    while out.len() + space.len() <= len {
        out.extend_from_slice(space);
    }
    out.resize(len, 0);
    out
}

/// A volume descriptor (ECMA-119, 8.4 and 8.5).
fn descriptor(tree: Tree, label: &str, blocks: u32, root: u32, root_sectors: u32) -> Vec<u8> {
    let (kind, tables) = match tree {
        Tree::Plain => (1, [19_u32, 20]),
        Tree::Joliet => (2, [21, 22]),
    };
    let mut out = vec![kind];
    out.extend(b"CD001\x01\0");
    out.extend(field(tree, "", 32));
    // The label keeps its case: `cidata` is what its readers look for.
    out.extend(field(tree, label, 32));
    out.extend([0; 8]);
    out.extend(both32(blocks));
    let mut escapes = [0; 32];
    if tree == Tree::Joliet {
        // UCS-2 level 3.
        escapes[..3].copy_from_slice(b"%/E");
    }
    out.extend(escapes);
    out.extend(both16(1));
    out.extend(both16(1));
    out.extend(both16(2048));
    out.extend(both32(10));
    out.extend(tables[0].to_le_bytes());
    out.extend([0; 4]);
    out.extend(tables[1].to_be_bytes());
    out.extend([0; 4]);
    out.extend(record(root, root_sectors * 2048, true, &[0], &[]));
    for len in [128, 128, 128, 128, 37, 37, 37] {
        out.extend(field(tree, "", len));
    }
    // Made; changed, expires, effective: not said (ECMA-119, 8.4.26.1).
    out.extend(b"2000010100000000\0");
    for _ in 0..3 {
        out.extend(b"0000000000000000\0");
    }
    out.push(1);
    pad(&mut out);
    out
}

/// A directory record (ECMA-119, 9.1).
fn record(sector: u32, len: u32, directory: bool, name: &[u8], system_use: &[u8]) -> Vec<u8> {
    let padding = usize::from(name.len().is_multiple_of(2));
    let whole = 33 + name.len() + padding + system_use.len();
    // Names and system use are bounded: 33 + 2 * 64 + 1, or 33 + 12 + 6 + 36 + 5 + 64.
    debug_assert!(whole <= 254);
    let mut out = vec![u8::try_from(whole).unwrap_or(u8::MAX), 0];
    out.extend(both32(sector));
    out.extend(both32(len));
    out.extend(DATE);
    out.extend([if directory { 2 } else { 0 }, 0, 0]);
    out.extend(both16(1));
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name);
    out.extend(std::iter::repeat_n(0, padding));
    out.extend_from_slice(system_use);
    if !out.len().is_multiple_of(2) {
        out.push(0);
        out[0] += 1;
    }
    out
}

/// Rock Ridge's `PX`: mode, links, owner (P1282, 4.1.1).
fn posix(mode: u32, links: u32) -> Vec<u8> {
    let mut out = b"PX\x24\x01".to_vec();
    for n in [mode, links, 0, 0] {
        out.extend(both32(n));
    }
    out
}

/// A level 1 name of eight characters and three, told apart by the file's number.
fn short_name(number: usize, name: &str) -> Vec<u8> {
    let letters = |text: &str, most: usize| -> String {
        text.chars()
            .filter(char::is_ascii_alphanumeric)
            .take(most)
            .map(|c| c.to_ascii_uppercase())
            .collect()
    };
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    format!(
        "{:04}{}.{};1",
        number % 10_000,
        letters(stem, 4),
        letters(extension, 3)
    )
    .into_bytes()
}

/// A directory: itself, its parent (itself), files in order. No record crosses a sector's end.
fn directory(tree: Tree, at: u32, own_sectors: u32, files: &[Placed<'_>]) -> Vec<u8> {
    let len = own_sectors * 2048;
    let mut own = vec![];
    let mut parent = vec![];
    if tree == Tree::Plain {
        // SUSP's `SP`, then `ER` with the extension's name alone, in the first record.
        own.extend(b"SP\x07\x01\xbe\xef\0");
        parent = posix(0o040_555, 2);
        own.extend_from_slice(&parent);
        own.extend(b"ER\x12\x01\x0a\0\0\x01RRIP_1991A");
    }
    let mut out = record(at, len, true, &[0], &own);
    out.extend(record(at, len, true, &[1], &parent));
    for (number, file) in files.iter().enumerate() {
        let entry = match tree {
            Tree::Joliet => record(file.sector, file.len, false, &ucs2(file.name), &[]),
            Tree::Plain => {
                let mut more = posix(0o100_444, 1);
                more.extend(b"NM");
                more.extend([u8::try_from(5 + file.name.len()).unwrap_or(u8::MAX), 1, 0]);
                more.extend_from_slice(file.name.as_bytes());
                record(
                    file.sector,
                    file.len,
                    false,
                    &short_name(number, file.name),
                    &more,
                )
            }
        };
        if out.len() % SECTOR + entry.len() > SECTOR {
            pad(&mut out);
        }
        out.extend(entry);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn at(image: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(image[offset..offset + 4].try_into().unwrap())
    }

    /// The files that a tree lists: its names are `name`'s of a record.
    fn list(
        image: &[u8],
        sector: usize,
        name: impl Fn(&[u8]) -> String,
    ) -> BTreeMap<String, Vec<u8>> {
        let root = sector * SECTOR + 156;
        let (start, len) = (
            at(image, root + 2) as usize * SECTOR,
            at(image, root + 10) as usize,
        );
        let mut files = BTreeMap::new();
        for sector in image[start..start + len].chunks(SECTOR) {
            let mut rest = sector;
            while !rest.is_empty() && rest[0] > 0 {
                let record = &rest[..rest[0] as usize];
                rest = &rest[record.len()..];
                if record[25] & 2 != 0 {
                    continue;
                }
                let (file, len) = (at(record, 2) as usize * SECTOR, at(record, 10) as usize);
                files.insert(name(record), image[file..file + len].to_vec());
            }
        }
        files
    }

    fn joliet(record: &[u8]) -> String {
        let name = &record[33..33 + record[32] as usize];
        let wide: Vec<u16> = name
            .chunks(2)
            .map(|c| u16::from_be_bytes([c[0], c[1]]))
            .collect();
        String::from_utf16(&wide).unwrap()
    }

    fn rock_ridge(record: &[u8]) -> String {
        let mut rest = &record[33 + (record[32] as usize | 1)..];
        while rest.len() > 4 {
            if &rest[..2] == b"NM" {
                return String::from_utf8(rest[5..rest[2] as usize].to_vec()).unwrap();
            }
            rest = &rest[rest[2] as usize..];
        }
        panic!("no name");
    }

    #[test]
    fn refuses_what_cannot_stand_there() {
        assert!(matches!(image("", &[]), Err(IsoError::Label(_))));
        assert!(matches!(image("a b", &[]), Err(IsoError::Label(_))));
        assert!(matches!(
            image(&"a".repeat(17), &[]),
            Err(IsoError::Label(_))
        ));
        for bad in ["", "a/b", "ä", &"a".repeat(65)] {
            assert_eq!(image("x", &[(bad, b"")]), Err(IsoError::Name(bad.into())));
        }
        assert!(matches!(
            image("x", &[("a", b"1"), ("a", b"2")]),
            Err(IsoError::Twice(_))
        ));
    }

    #[test]
    fn the_same_files_give_the_same_bytes_and_a_small_drive() {
        let files: [(&str, &[u8]); 2] = [("user-data", b"seed"), ("meta-data", b"id")];
        let one = image("cidata", &files).unwrap();
        assert_eq!(one, image("cidata", &[files[1], files[0]]).unwrap());
        assert_eq!(one.len(), 27 * SECTOR);
        assert_eq!(&one[16 * SECTOR + 1..16 * SECTOR + 6], b"CD001");
        assert_eq!(&one[16 * SECTOR + 40..16 * SECTOR + 47], b"cidata ");
        assert_eq!(at(&one, 16 * SECTOR + 80) as usize * SECTOR, one.len());
    }

    proptest! {
        #[test]
        fn both_trees_give_every_file_back(
            files in proptest::collection::btree_map("[a-zA-Z0-9._-]{1,64}", proptest::collection::vec(any::<u8>(), 0..5000), 0..60),
        ) {
            let given: Vec<(&str, &[u8])> = files.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect();
            let image = image("cidata", &given).unwrap();
            prop_assert_eq!(image.len() % SECTOR, 0);
            prop_assert_eq!(&list(&image, 16, rock_ridge), &files);
            prop_assert_eq!(&list(&image, 17, joliet), &files);
        }
    }
}
