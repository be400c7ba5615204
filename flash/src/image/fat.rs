//! FAT volumes inside an image: their ids, and a file put onto one.

use fatfs::{FileSystem, FsOptions};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The longest file that is read of a volume, in bytes: a loader has some hundred KiB.
const FILE_MAX: u64 = 64 << 20;
/// Reads and writes that are allowed on one volume. A damaged one can lead in circles.
const OPERATIONS: u32 = 1_000_000;

/// A volume in memory whose reads and writes are counted.
struct Counted<'a> {
    inner: Cursor<&'a mut [u8]>,
    left: u32,
}

impl<'a> Counted<'a> {
    fn new(volume: &'a mut [u8]) -> Self {
        Self {
            inner: Cursor::new(volume),
            left: OPERATIONS,
        }
    }

    fn count(&mut self) -> io::Result<()> {
        let left = self.left.checked_sub(1);
        self.left = left.ok_or_else(|| io::Error::other("it leads in circles"))?;
        Ok(())
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.count()?;
        self.inner.read(buf)
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.count()?;
        self.inner.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// The library panics over some damage: an error as any other.
fn caught<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(io::Error::other("it is damaged")))
}

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

/// Where the volume id (four bytes) of the FAT that begins with these bytes stands: in the boot
/// sector, and of FAT32 in its copy (Microsoft's FAT specification 1.03). Empty: no FAT.
pub(crate) fn id_places(head: &[u8]) -> Vec<u64> {
    const EXTENDED: u8 = 0x29;
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
        return Vec::new();
    }
    let (Some(sector), Some(per_fat), Some(copy)) =
        (u16_at(head, 11), u16_at(head, 22), u16_at(head, 50))
    else {
        return Vec::new();
    };
    match (per_fat, head.get(38), head.get(66)) {
        (1.., Some(&EXTENDED), _) => vec![39],
        (0, _, Some(&EXTENDED)) => {
            let copy = u64::from(copy) * u64::from(sector);
            let mut places = vec![67];
            if copy > 0 && copy < 0xffff_ffff {
                places.push(copy + 67);
            }
            places
        }
        _ => Vec::new(),
    }
}

/// Where the last cluster ends that something lies in, from the volume's start; what is behind it is
/// read by nobody. `None`: no FAT that is understood (Microsoft's FAT specification 1.03).
pub(crate) fn used_end(volume: &[u8]) -> Option<u64> {
    if volume.get(510..512) != Some(&[0x55, 0xaa]) {
        return None;
    }
    let byte = |at: usize| volume.get(at).map(|b| u64::from(*b));
    let word = |at: usize| u16_at(volume, at).map(u64::from);
    let long = |at: usize| Some(word(at)? | word(at + 2)? << 16);
    let either = |short: Option<u64>, long: Option<u64>| match short {
        Some(0) => long,
        short => short,
    };
    let sector = word(11).filter(|s| s.is_power_of_two() && (512..=4096).contains(s))?;
    let per_cluster = byte(13).filter(|n| *n > 0)?;
    let fat_sectors = either(word(22), long(36))?;
    let total = either(word(19), long(32))?;
    let root = (word(17)? * 32).div_ceil(sector);
    let data = word(14)? + byte(16)? * fat_sectors + root;
    let clusters = total.checked_sub(data)? / per_cluster;
    let start = usize::try_from(word(14)? * sector).ok()?;
    let fat = volume.get(start..)?;
    let entry = |n: u64| -> Option<u64> {
        let n = usize::try_from(n).ok()?;
        match clusters {
            0..4085 => {
                let pair = u16_at(fat, n + n / 2)?;
                Some(u64::from(if n % 2 == 0 { pair & 0xfff } else { pair >> 4 }))
            }
            4085..65525 => Some(u64::from(u16_at(fat, 2 * n)?)),
            _ => {
                let entry = fat.get(4 * n..4 * n + 4)?.try_into().ok()?;
                Some(u64::from(u32::from_le_bytes(entry) & 0x0fff_ffff))
            }
        }
    };
    let mut end = data;
    for n in 2..clusters + 2 {
        if entry(n)? != 0 {
            end = data + (n - 1) * per_cluster;
        }
    }
    Some(end * sector)
}

/// The content of a file on the volume, if it is there.
pub(crate) fn read_file(volume: &mut [u8], path: &str) -> Option<Vec<u8>> {
    let read = || {
        let options = FsOptions::new().update_accessed_date(false);
        let fs = FileSystem::new(Counted::new(volume), options)?;
        let mut content = Vec::new();
        let file = fs.root_dir().open_file(path)?;
        file.take(FILE_MAX).read_to_end(&mut content)?;
        Ok(content)
    };
    caught(read).ok()
}

/// Puts a file into the volume's root. One of the same name is overwritten with zeros before it is
/// replaced: it may have been a secret.
pub(crate) fn with_file(volume: &mut [u8], name: &str, content: &[u8]) -> io::Result<()> {
    let len = volume.len();
    caught(|| {
        let fs = FileSystem::new(Counted::new(volume), FsOptions::new())?;
        {
            let root = fs.root_dir();
            let mut file = root.create_file(name)?;
            let old = usize::try_from(file.seek(SeekFrom::End(0))?).unwrap_or(usize::MAX);
            if old > len {
                return Err(io::Error::other("a file on it is longer than itself"));
            }
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&vec![0; old])?;
            file.seek(SeekFrom::Start(0))?;
            file.truncate()?;
            file.write_all(content)?;
            file.flush()?;
        }
        fs.unmount()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fatfs::FormatVolumeOptions;
    use proptest::prelude::*;

    fn volume(len: usize, id: u32) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let options = FormatVolumeOptions::new().volume_id(id);
        fatfs::format_volume(Cursor::new(&mut bytes), options).unwrap();
        bytes
    }

    #[test]
    fn the_id_is_found_in_fats_of_all_sizes() {
        for (len, places) in [(2 << 20, 1), (16 << 20, 1), (64 << 20, 1), (513 << 20, 2)] {
            let mut bytes = volume(len, 0x0102_0304);
            let found = id_places(&bytes);
            assert_eq!(found.len(), places, "{len}");
            for at in found {
                let at = at as usize;
                assert_eq!(bytes[at..at + 4], [4, 3, 2, 1]);
                bytes[at..at + 4].copy_from_slice(&[8, 7, 6, 5]);
            }
            let fs = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
            assert_eq!(fs.volume_id(), 0x0506_0708);
        }
        assert!(id_places(&[0; 512]).is_empty());
        assert!(id_places(&[]).is_empty());
    }

    #[test]
    fn what_lies_behind_the_last_cluster_is_not_needed() {
        for len in [2 << 20, 16 << 20, 64 << 20, 513 << 20] {
            let mut bytes = volume(len, 1);
            let content: Vec<u8> = (0..700_000u32).map(|n| (n >> 3) as u8 | 1).collect();
            with_file(&mut bytes, "a", &content).unwrap();
            let end = used_end(&bytes).unwrap() as usize;
            assert!(
                end > content.len() && end < content.len() + len / 8,
                "{len}: {end}"
            );
            assert!(bytes[end..].iter().all(|b| *b == 0));
            bytes[end..].fill(0xee);
            assert_eq!(read_file(&mut bytes, "a").unwrap(), content);
            // FAT12 has odd entries, too.
            with_file(&mut bytes, "b", &[7; 5000]).unwrap();
            assert!(used_end(&bytes).unwrap() as usize > end);
        }
        assert_eq!(used_end(&[0; 4096]), None);
        let mut cut = volume(16 << 20, 1);
        cut.truncate(2048);
        assert_eq!(used_end(&cut), None);
        cut[11..64].fill(0xff);
        assert_eq!(used_end(&cut), None);
    }

    #[test]
    fn a_file_replaces_another_without_a_trace() {
        let mut bytes = volume(16 << 20, 1);
        let secret = b"sesame-sesame".repeat(1000);
        with_file(&mut bytes, "seed.toml", &secret).unwrap();
        assert_eq!(read_file(&mut bytes, "seed.toml").unwrap(), secret);
        with_file(&mut bytes, "seed.toml", b"new").unwrap();
        assert_eq!(read_file(&mut bytes, "SEED.TOML").unwrap(), b"new");
        assert!(!bytes.windows(13).any(|w| w == b"sesame-sesame"));
        assert!(with_file(&mut vec![0; 4096], "a", b"").is_err());
    }

    #[test]
    fn a_volume_that_leads_in_circles_or_lies_comes_to_an_end() {
        let mut bytes = volume(16 << 20, 1);
        with_file(&mut bytes, "long", &[7; 100_000]).unwrap();
        let at = bytes.windows(11).position(|w| w == b"LONG       ").unwrap();
        // Its size is said to be 4 GiB, and its first cluster to follow itself (FAT16).
        let cluster = usize::from(u16_at(&bytes, at + 26).unwrap());
        bytes[at + 28..at + 32].fill(0xff);
        let fat = usize::from(u16_at(&bytes, 14).unwrap()) * 512;
        bytes[fat + 2 * cluster..][..2].copy_from_slice(&(cluster as u16).to_le_bytes());
        let read = read_file(&mut bytes, "long");
        assert!(read.is_none_or(|content| content.len() as u64 <= FILE_MAX));
        assert!(with_file(&mut bytes, "long", b"x").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_damage_is_read_and_written_to_an_end(
            changes in proptest::collection::vec((0usize..131_072, any::<u8>()), 1..30),
        ) {
            let mut bytes = volume(2 << 20, 1);
            with_file(&mut bytes, "seed.toml", &[b'#'; 9000]).unwrap();
            for (at, byte) in changes {
                // Two in three where boot sector and tables begin.
                let at = if at % 3 == 0 { at } else { at % 1024 };
                bytes[at] = byte;
            }
            let _ = (id_places(&bytes), used_end(&bytes));
            let _ = read_file(&mut bytes, "seed.toml");
            let _ = with_file(&mut bytes, "seed.toml", &[b'x'; 5000]);
        }
    }
}
