//! Raw reads and writes of partitions; a write returns when the disk has it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Opens a partition for reading.
///
/// # Errors
/// The path is part of the message.
pub fn open_read(path: &Path) -> io::Result<File> {
    File::open(path).map_err(|e| named(path, &e))
}

/// Opens a partition for reading and writing; never creates a file.
///
/// # Errors
/// The path is part of the message.
pub fn open_write(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| named(path, &e))
}

fn named(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

/// Reads up to `len` bytes at `offset`; fewer at the end.
///
/// # Errors
/// As the disk says.
pub fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut out[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    out.truncate(done);
    Ok(out)
}

/// Writes all of `bytes` at `offset` and waits until the disk has them.
///
/// # Errors
/// As the disk says.
pub fn write_flushed(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    file.sync_data()
}

/// Asks the kernel to forget what it holds of `file`, so that the next read is the disk's. A hint: where
/// it is not followed, the cache is read.
pub fn forget_cached(file: &File) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

/// Runs blocking work off the event loop.
///
/// # Errors
/// The work's own, or that its thread died.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(anyhow::anyhow!("a worker thread died: {e}")),
    }
}
