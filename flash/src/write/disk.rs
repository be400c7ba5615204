//! Real media: block devices, and files that stand for one.

use super::target::Target;
use crate::device::{DevNumber, Device, Obstacle, Snapshot, by_number};
use crate::error::{Error, IoContext as _, Result};
use crate::medium::{self, Presence};
use crate::sys;
use crate::write::buffer::Buffer;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::unistd::{Gid, Group};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Zeros that are written where nothing makes them cheaper, in bytes.
const ZEROS: usize = 1 << 20;
/// Files are used in whole pages.
const PAGE: u64 = 4096;

/// What a path leads to.
#[derive(Debug, Clone)]
pub enum Place {
    /// A disk of this computer.
    Disk(Device),
    /// A file of so many bytes.
    File(u64),
}

/// Finds out what `path` is.
///
/// # Errors
/// When there is nothing, a partition, or something that is no disk.
pub fn find(path: &Path) -> Result<Place> {
    let meta = match std::fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::NoDevice(path.to_owned()));
        }
        meta => meta.at("look at", path)?,
    };
    if meta.is_file() {
        return Ok(Place::File(meta.len() / PAGE * PAGE));
    }
    if !meta.file_type().is_block_device() {
        return Err(Error::NoDisk(path.to_owned()));
    }
    match by_number(&Snapshot::take()?, number_of(meta.rdev())) {
        Some((device, None)) => Ok(Place::Disk(device)),
        Some((device, Some(_))) => Err(Error::Device {
            path: path.to_owned(),
            obstacle: Obstacle::Partition(device.path.display().to_string()),
        }),
        None => Err(Error::NoDisk(path.to_owned())),
    }
}

fn number_of(rdev: u64) -> DevNumber {
    DevNumber {
        major: libc::major(rdev),
        minor: libc::minor(rdev),
    }
}

/// An open medium, claimed for this process.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    file: File,
    /// The same file past the page cache, where that works. A block device is only ever open so.
    direct: Option<File>,
    block: Option<DevNumber>,
    len: u64,
}

impl Disk {
    /// Opens it for writing, so that no file system, volume manager or other `flash` can have it at
    /// the same time, and udev leaves it alone meanwhile (systemd's "Locking Block Device Access").
    ///
    /// # Errors
    /// When this user may not, or someone else has it.
    pub fn open(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).at("look at", path)?;
        let is_block = meta.file_type().is_block_device();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let open = |options: &OpenOptions| match options.open(path) {
            Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(Error::NoRights {
                path: path.to_owned(),
                advice: advice(&meta, path),
            }),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Err(Error::Busy(path.to_owned())),
            Err(e) if e.raw_os_error() == Some(libc::EROFS) => Err(Error::Device {
                path: path.to_owned(),
                obstacle: Obstacle::ReadOnly,
            }),
            Err(e) if e.raw_os_error() == Some(libc::ENOMEDIUM) => Err(Error::Device {
                path: path.to_owned(),
                obstacle: Obstacle::NoMedium,
            }),
            opened => opened.at("open", path),
        };
        let (file, direct) = if is_block {
            // O_EXCL without O_CREAT claims a block device (open(2)).
            let file = open(options.custom_flags(libc::O_EXCL | libc::O_DIRECT))?;
            (file, None)
        } else {
            let file = open(&options)?;
            // Not every file system takes it.
            (file, options.custom_flags(libc::O_DIRECT).open(path).ok())
        };
        if file.try_lock().is_err() {
            return Err(Error::Busy(path.to_owned()));
        }
        let len = match is_block {
            true => sys::size(&file).at("measure", path)?,
            false => meta.len() / PAGE * PAGE,
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            direct,
            block: is_block.then(|| number_of(meta.rdev())),
            len,
        })
    }

    /// As [`Self::open`], if it is still the medium that was seen as `seen`: cards and names change
    /// while someone is asked.
    ///
    /// # Errors
    /// As there, and when it is another one.
    pub fn open_seen(path: &Path, seen: &Presence) -> Result<Self> {
        let disk = Self::open(path)?;
        // From here on the kernel gives the name to no other.
        let now = medium::look(path).at("look at", path)?;
        match (now == *seen, seen) {
            (true, Presence::Present(_)) => Ok(disk),
            _ => Err(Error::Swapped(path.to_owned())),
        }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no room at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Has the kernel look at the new table; it does so by itself, later, where this user may not
    /// ask.
    pub fn reread_table(&self) {
        if self.block.is_some() {
            let _ = sys::reread_table(&self.file);
        }
    }

    /// Ejects the medium.
    ///
    /// # Errors
    /// When this kind of medium cannot be ejected.
    pub fn eject(&self) -> io::Result<()> {
        match self.block {
            Some(_) => sys::eject(&self.file),
            None => Err(ErrorKind::Unsupported.into()),
        }
    }

    fn io(&self) -> &File {
        self.direct.as_ref().unwrap_or(&self.file)
    }
}

/// Whose the device is, and what a user without rights can do.
fn advice(meta: &std::fs::Metadata, path: &Path) -> String {
    let group = Group::from_gid(Gid::from_raw(meta.gid())).ok().flatten();
    let name = group.map_or_else(|| meta.gid().to_string(), |g| g.name);
    let file = path.display();
    match (meta.mode() & 0o020 != 0, meta.gid()) {
        (true, 1..) => format!(
            "group {name} may. `sudo usermod -aG {name} $USER` and a new login let you in for good; \
             `sudo setfacl -m u:$USER:rw {file}` until it is unplugged; or run this with sudo"
        ),
        _ => format!(
            "only its owner may. `sudo setfacl -m u:$USER:rw {file}` lets you in until it is unplugged; \
             or run this with sudo"
        ),
    }
}

fn unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOTTY | libc::ENOSYS)
    )
}

impl Target for Disk {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.io().write_all_at(bytes, offset)
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let asked = match self.block {
            Some(_) => sys::zero(&self.file, offset, len),
            None => punch(&self.file, offset, len),
        };
        match asked {
            Err(e) if unsupported(&e) => {}
            other => return other,
        }
        let zeros = Buffer::new(ZEROS);
        let mut at = offset;
        while at < offset + len {
            let n = (offset + len - at).min(ZEROS as u64) as usize;
            self.write_at(at, &zeros.bytes()[..n])?;
            at += n as u64;
        }
        Ok(())
    }

    fn forget(&self, offset: u64, len: u64) -> io::Result<()> {
        match self.block {
            Some(_) => sys::discard(&self.file, offset, len),
            None => punch(&self.file, offset, len),
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn drop_cache(&self) {
        // Reads go past the cache anyway, where the file system lets them.
        if self.block.is_some() {
            let _ = sys::flush_cache(&self.file);
        }
        let _ = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.io().read_exact_at(buffer, offset)
    }

    fn is_there(&self) -> bool {
        match self.block {
            Some(number) => {
                Path::new("/sys/dev/block")
                    .join(number.to_string())
                    .exists()
                    && sys::size(&self.file).is_ok_and(|n| n == self.len)
            }
            None => self.path.exists(),
        }
    }
}

fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let signed = |n: u64| i64::try_from(n).map_err(|_| io::Error::from(ErrorKind::InvalidInput));
    fallocate(file, flags, signed(offset)?, signed(len)?).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_medium_that_came_in_the_others_place_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("card");
        let make = |path: &Path| File::create_new(path).unwrap().set_len(1 << 20).unwrap();
        make(&path);
        let seen = medium::look(&path).unwrap();
        drop(Disk::open_seen(&path, &seen).unwrap());
        let other = dir.path().join("other");
        make(&other);
        std::fs::rename(&other, &path).unwrap();
        let error = Disk::open_seen(&path, &seen).unwrap_err();
        assert!(matches!(error, Error::Swapped(_)), "{error}");
        let error = Disk::open_seen(&path, &Presence::Absent).unwrap_err();
        assert!(matches!(error, Error::Swapped(_)), "{error}");
    }
}
