//! Makes of a volume that `fatfs` wrote one that `fsck.vfat` finds no fault with: `.` and `..` are
//! the first two entries of a folder and have no long names, `..` of a folder in the root names
//! cluster 0, and FAT32's count of free clusters is there (Microsoft, "FAT: General Overview of
//! On-Disk Format", 1.03).

use crate::error::{Error, Result};

const ENTRY: usize = 32;
const FOLDER: u8 = 0x10;
/// Attributes of a piece of a long name.
const LONG: u8 = 0x0f;
const DELETED: u8 = 0xe5;
const DOT: &[u8; 11] = b".          ";
const DOTS: &[u8; 11] = b"..         ";

/// Where things lie in a volume, in bytes.
struct Geometry {
    cluster: usize,
    fat: usize,
    data: usize,
    clusters: usize,
    fat32: bool,
    /// Offset and length of the root's entries.
    root: (usize, usize),
}

fn geometry(v: &[u8]) -> Option<Geometry> {
    let n2 = |at: usize| {
        Some(usize::from(u16::from_le_bytes(
            v.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let n4 = |at: usize| Some(u32::from_le_bytes(v.get(at..at + 4)?.try_into().ok()?) as usize);
    let sector = n2(11).filter(|n| n.is_power_of_two())?;
    let cluster = sector * usize::from(*v.get(13)?);
    let fat = sector * n2(14)?;
    let fat32 = n2(22)? == 0;
    let fat_len = sector * if fat32 { n4(36)? } else { n2(22)? };
    let root_at = fat + fat_len * usize::from(*v.get(16)?);
    let root_len = ENTRY * n2(17)?;
    let data = root_at + root_len.next_multiple_of(sector);
    let total = sector * if n2(19)? == 0 { n4(32)? } else { n2(19)? };
    let root = match fat32 {
        true => (data + (n4(44)?.checked_sub(2)?) * cluster, cluster),
        false => (root_at, root_len),
    };
    Some(Geometry {
        cluster,
        fat,
        data,
        clusters: total.checked_sub(data)?.checked_div(cluster)?,
        fat32,
        root,
    })
}

/// Mends the volume in place.
///
/// # Errors
/// When it is no FAT volume.
pub(super) fn mend(volume: &mut [u8]) -> Result<()> {
    let bad = || Error::build("FAT volume", "is none");
    let g = geometry(volume).ok_or_else(bad)?;
    folder(volume, &g, g.root, true).ok_or_else(bad)?;
    if g.fat32 {
        count_free(volume, &g).ok_or_else(bad)?;
    }
    Ok(())
}

/// Mends the folders in the stretch of entries at `at`; a folder goes on in further clusters, but
/// its own `.` and `..` are in the first.
fn folder(v: &mut [u8], g: &Geometry, at: (usize, usize), in_root: bool) -> Option<()> {
    let mut stretch = Some(at);
    while let Some((from, len)) = stretch {
        for entry in (from..from + len).step_by(ENTRY) {
            let e: [u8; ENTRY] = v.get(entry..entry + ENTRY)?.try_into().ok()?;
            let special = e[0] == 0 || e[0] == DELETED || e[0] == b'.';
            if special || e[11] == LONG || e[11] & FOLDER == 0 {
                continue;
            }
            let low = u16::from_le_bytes([e[26], e[27]]);
            let high = if g.fat32 {
                u16::from_le_bytes([e[20], e[21]])
            } else {
                0
            };
            let first = (usize::from(high) << 16) | usize::from(low);
            let below = g.data + first.checked_sub(2)? * g.cluster;
            dots(v.get_mut(below..below + g.cluster)?, in_root);
            folder(v, g, (below, g.cluster), false)?;
        }
        stretch = (g.fat32 || !in_root)
            .then(|| following(v, g, from))
            .flatten();
    }
    Some(())
}

/// The cluster after the one at `from` in its chain.
fn following(v: &[u8], g: &Geometry, from: usize) -> Option<(usize, usize)> {
    let next = fat_entry(v, g, (from - g.data) / g.cluster + 2)?;
    let last = if g.fat32 { 0x0fff_fff8 } else { 0xfff8 };
    (2..last)
        .contains(&next)
        .then(|| (g.data + (next - 2) * g.cluster, g.cluster))
}

fn fat_entry(v: &[u8], g: &Geometry, number: usize) -> Option<usize> {
    Some(match g.fat32 {
        true => {
            let at = g.fat + 4 * number;
            let four = u32::from_le_bytes(v.get(at..at + 4)?.try_into().ok()?);
            (four & 0x0fff_ffff) as usize
        }
        false => {
            let at = g.fat + 2 * number;
            usize::from(u16::from_le_bytes(v.get(at..at + 2)?.try_into().ok()?))
        }
    })
}

/// Puts `.` and `..` first.
fn dots(cluster: &mut [u8], parent_is_root: bool) {
    let find = |c: &[u8], name: &[u8; 11]| {
        c.chunks_exact(ENTRY)
            .take(4)
            .position(|e| e.starts_with(name) && e[11] & FOLDER != 0 && e[11] != LONG)
    };
    for (place, name) in [(0, DOT), (1, DOTS)] {
        let Some(found) = find(cluster, name).filter(|found| *found != place) else {
            continue;
        };
        cluster.copy_within(found * ENTRY..(found + 1) * ENTRY, place * ENTRY);
        cluster[found * ENTRY] = DELETED;
    }
    for place in 2..4 {
        // Pieces of the two names' long forms.
        let piece = cluster[place * ENTRY + 11] == LONG && cluster[place * ENTRY + 1] == b'.';
        if piece {
            cluster[place * ENTRY] = DELETED;
        }
    }
    if parent_is_root && cluster[ENTRY..].starts_with(DOTS) {
        cluster[ENTRY + 20..ENTRY + 22].fill(0);
        cluster[ENTRY + 26..ENTRY + 28].fill(0);
    }
}

/// Fills in the FSInfo sector and its copy behind the boot sector's.
fn count_free(v: &mut [u8], g: &Geometry) -> Option<()> {
    let numbers = 2..g.clusters + 2;
    let free = numbers.clone().filter(|n| fat_entry(v, g, *n) == Some(0));
    let free = u32::try_from(free.count()).ok()?;
    let next = numbers.clone().find(|n| fat_entry(v, g, *n) == Some(0));
    let next = u32::try_from(next.unwrap_or(2)).ok()?;
    let sector = usize::from(u16::from_le_bytes([v[11], v[12]]));
    let info = usize::from(u16::from_le_bytes([v[48], v[49]]));
    let copy = usize::from(u16::from_le_bytes([v[50], v[51]]));
    for at in [info * sector, (copy + info) * sector] {
        let place = v.get_mut(at..at + sector)?;
        if place.starts_with(b"RRaA") {
            place[488..492].copy_from_slice(&free.to_le_bytes());
            place[492..496].copy_from_slice(&next.to_le_bytes());
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::fat::{Kind, volume};
    use super::*;

    #[test]
    fn folders_begin_with_their_dots_and_free_clusters_are_counted() {
        for (kind, len) in [(Kind::Fat32, 64 << 20), (Kind::Fat16, 16 << 20)] {
            let many: Vec<String> = (0..40)
                .map(|i| format!("a/b/a long name {i}.txt"))
                .collect();
            let files: Vec<(&str, &[u8])> = many.iter().map(|n| (n.as_str(), &b"x"[..])).collect();
            let bytes = volume(kind, len, "X", 7, &files).unwrap();
            let g = geometry(&bytes).unwrap();
            let a = g.data + if g.fat32 { g.cluster } else { 0 };
            assert!(bytes[a..].starts_with(DOT) && bytes[a + 32..].starts_with(DOTS));
            assert_eq!(bytes[a + 32 + 26..a + 32 + 28], [0, 0]);
            assert_eq!((bytes[a + 64], bytes[a + 96]), (DELETED, DELETED));
            if g.fat32 {
                let free = u32::from_le_bytes(bytes[512 + 488..512 + 492].try_into().unwrap());
                let used = g.clusters - free as usize;
                assert!((44..70).contains(&used), "{used}");
            }
            let mut again = bytes.clone();
            mend(&mut again).unwrap();
            assert!(again == bytes);
        }
        assert!(mend(&mut [0; 100]).is_err());
    }
}
