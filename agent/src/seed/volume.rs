//! The FAT volume `hf-seed`: read, reported on, and formatted anew, without mounting it.

use anyhow::Context as _;
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use holdfast_core::seed::{FILE_NAME, MAX_LEN};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

/// The volume's label, padded as FAT has it.
const LABEL: [u8; 11] = *b"HOLDFAST   ";
/// The longest report that is left on the volume.
pub const REPORT_MAX: usize = 64 * 1024;

/// What hangs over a damaged volume keeps its thread: never more than one of the agent's few.
static ONE: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(1)));
/// A damaged volume holds up nobody for longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Does `work` on the volume off the event loop, one at a time. What takes longer than `limit`
/// may still come to its end later.
///
/// # Errors
/// The work's own; when it, or what came before it, does not end within `limit`; its panic.
pub async fn with<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    one_at_a_time(ONE.clone(), limit, work).await
}

async fn one_at_a_time<T: Send + 'static>(
    one: Arc<Semaphore>,
    limit: Duration,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    let permit = timeout_at(end, one.acquire_owned())
        .await
        .context("hf-seed still hangs over earlier work")??;
    let done = crate::disk::blocking(move || {
        // With the work, not with who waits for it.
        let _permit = permit;
        work()
    });
    timeout_at(end, done)
        .await
        .context("the volume does not answer")?
}

/// Reads the seed; `None` when the volume has none.
pub fn read_seed(partition: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let file = File::open(partition).map_err(|e| format!("{}: {e}", partition.display()))?;
    let volume = FileSystem::new(file, FsOptions::new().update_accessed_date(false))
        .map_err(|e| format!("the volume is no FAT that can be read ({e})"))?;
    let root = volume.root_dir();
    let seed = match root.open_file(FILE_NAME) {
        Ok(seed) => seed,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    seed.take(MAX_LEN as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    Ok(Some(bytes))
}

/// Leaves files on the volume, replacing those of the same names.
///
/// # Errors
/// When the volume is no FAT or cannot be written.
pub fn write_files(partition: &Path, files: &[(&str, Vec<u8>)]) -> anyhow::Result<()> {
    let disk = crate::disk::open_write(partition)?;
    let volume = FileSystem::new(&disk, FsOptions::new()).context("hf-seed is no FAT volume")?;
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

    fn volume() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        format_anew(file.path()).unwrap();
        file
    }

    #[tokio::test]
    async fn one_thread_at_most_hangs_over_a_volume() {
        let one = Arc::new(Semaphore::new(1));
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(30));
        let (release, hang) = std::sync::mpsc::channel::<()>();
        let hangs = move || Ok(hang.recv()?);
        let e = one_at_a_time(one.clone(), short, hangs).await.unwrap_err();
        assert!(e.to_string().contains("does not answer"), "{e:#}");
        let e = one_at_a_time(one.clone(), short, || Ok(())).await;
        assert!(e.unwrap_err().to_string().contains("still hangs"));
        // What overlaps waits for its turn.
        let waits = tokio::spawn(one_at_a_time(one.clone(), long, || Ok(5)));
        tokio::task::yield_now().await;
        release.send(()).unwrap();
        assert_eq!(waits.await.unwrap().unwrap(), 5);
        let panics = one_at_a_time(one.clone(), long, || -> anyhow::Result<()> { panic!() });
        assert!(panics.await.is_err());
        assert!(one_at_a_time(one, long, || Ok(())).await.is_ok());
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
}
