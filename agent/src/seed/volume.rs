//! The FAT volume `hf-seed`: read, reported on, and formatted anew, without mounting it.

use super::patience::{Counted, Turn};
use anyhow::Context as _;
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use holdfast_core::seed::{FILE_NAME, MAX_LEN};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;
use zeroize::Zeroizing;

/// The volume's label, padded as FAT has it.
const LABEL: [u8; 11] = *b"HOLDFAST   ";
/// The longest report that is left on the volume.
pub const REPORT_MAX: usize = 64 * 1024;

/// A damaged volume holds up nobody for longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

static TURN: LazyLock<Turn> = LazyLock::new(|| Turn::new("hf-seed"));

/// Does `work` on the volume: see [`Turn::take`].
///
/// # Errors
/// As there.
pub async fn with<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    TURN.take(limit, work).await
}

/// Reads the seed; `None` when the volume has none.
pub fn read_seed(partition: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let file = File::open(partition).map_err(|e| format!("{}: {e}", partition.display()))?;
    let options = FsOptions::new().update_accessed_date(false);
    let volume = FileSystem::new(Counted::new(file), options)
        .map_err(|e| format!("the volume is no FAT that can be read ({e})"))?;
    read_file(&volume, FILE_NAME).map_err(|e| e.to_string())
}

/// Reads a file of a volume's root directory, one byte more than a seed may have at most.
pub fn read_file<T: Read + Write + Seek>(
    volume: &FileSystem<T>,
    name: &str,
) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match volume.root_dir().open_file(name) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    // Room for all of it: a buffer that grows leaves copies of the token behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN + 64));
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Leaves files on the volume, replacing those of the same names.
///
/// # Errors
/// When the volume is no FAT or cannot be written.
pub fn write_files(partition: &Path, files: &[(&str, Vec<u8>)]) -> anyhow::Result<()> {
    let disk = crate::disk::open_write(partition)?;
    let volume = FileSystem::new(Counted::new(&disk), FsOptions::new())
        .context("hf-seed is no FAT volume")?;
    {
        let root = volume.root_dir();
        for (name, content) in files {
            let mut file = root.create_file(name).with_context(|| (*name).to_owned())?;
            file.truncate()?;
            file.write_all(&content[..content.len().min(REPORT_MAX)])?;
            file.flush()?;
        }
    }
    volume.unmount().context("hf-seed cannot be written")?;
    disk.sync_all()?;
    Ok(())
}

/// Overwrites the whole partition and makes a fresh volume; returns when the disk has it.
///
/// # Errors
/// When it cannot be written.
pub fn format_anew(partition: &Path) -> anyhow::Result<()> {
    let mut disk = crate::disk::open_write(partition)?;
    let len = disk.seek(SeekFrom::End(0))?;
    disk.seek(SeekFrom::Start(0))?;
    let zeros = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        let n = left.min(zeros.len() as u64);
        disk.write_all(&zeros[..n as usize])?;
        left -= n;
    }
    disk.sync_all().context("hf-seed cannot be wiped")?;
    disk.seek(SeekFrom::Start(0))?;
    fatfs::format_volume(&disk, FormatVolumeOptions::new().volume_label(LABEL))
        .context("hf-seed cannot be formatted")?;
    disk.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn volume() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        format_anew(file.path()).unwrap();
        file
    }

    #[test]
    fn a_seed_is_read_and_leaves_no_byte_behind() {
        let volume = volume();
        assert!(read_seed(volume.path()).unwrap().is_none());
        let secret = b"token = \"sesame-sesame-sesame\"".to_vec();
        write_files(volume.path(), &[(FILE_NAME, secret.clone())]).unwrap();
        assert_eq!(**read_seed(volume.path()).unwrap().unwrap(), secret);
        format_anew(volume.path()).unwrap();
        assert!(read_seed(volume.path()).unwrap().is_none());
        let raw = std::fs::read(volume.path()).unwrap();
        assert!(!raw.windows(secret.len()).any(|w| w == secret));
        write_files(volume.path(), &[("report.txt", b"joined".to_vec())]).unwrap();
    }

    #[test]
    fn reports_replace_each_other() {
        let volume = volume();
        for text in ["a long first report", "short"] {
            write_files(volume.path(), &[("report.txt", text.into())]).unwrap();
        }
        let fs = FileSystem::new(volume.as_file(), FsOptions::new()).unwrap();
        assert_eq!(fs.volume_label(), "HOLDFAST");
        let mut text = String::new();
        fs.root_dir()
            .open_file("report.txt")
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "short");
    }

    #[test]
    fn what_is_no_fat_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        assert!(read_seed(file.path()).unwrap_err().contains("FAT"));
        assert!(write_files(file.path(), &[]).is_err());
    }

    proptest! {
        #![proptest_config(crate::seed::fuzz::cases())]
        #[test]
        fn damaged_volumes_are_read_and_written_to_an_end(
            changes in proptest::collection::vec((0usize..65_536, any::<u8>()), 1..30),
        ) {
            static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
                let volume = volume();
                let seed = vec![b'#'; 9000];
                write_files(volume.path(), &[(FILE_NAME, seed)]).unwrap();
                std::fs::read(volume.path()).unwrap()
            });
            let mut bytes = GOOD.clone();
            for (at, byte) in changes {
                // Twice in three: where boot sector, tables and root directory begin.
                let at = if at % 3 == 0 { at } else { at % 1024 };
                bytes[at] = byte;
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            let path = file.path().to_owned();
            // As the agent does it: a panic of the library ends as an error.
            let read = std::panic::catch_unwind(|| read_seed(&path));
            if let Ok(Ok(Some(seed))) = read {
                prop_assert!(seed.len() <= MAX_LEN + 1);
            }
            let report = vec![b'x'; 3000];
            let _ = std::panic::catch_unwind(|| write_files(&path, &[("report.txt", report)]));
        }
    }
}
