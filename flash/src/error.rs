//! What can go wrong, with where, and what to do next.

use crate::device::Obstacle;
use crate::write::BadBlocks;
use std::io;
use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why nothing was flashed, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, in the infinitive.
        action: &'static str,
        /// The file or device.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// There is no such image.
    #[error("there is no image {0}: `holdfast build` makes one")]
    NoImage(PathBuf),
    /// The file is something else than a disk image of ours, or a damaged one.
    #[error("{path} cannot be flashed: {reason}")]
    Image {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        reason: String,
    },
    /// The seed cannot go with this image.
    #[error("the seed does not fit the image: {0}")]
    Seed(#[from] crate::seed::Mismatch),
    /// The device must not or cannot be overwritten.
    #[error("{path}: {obstacle}")]
    Device {
        /// The device.
        path: PathBuf,
        /// Why.
        obstacle: Obstacle,
    },
    /// There is nothing of this name.
    #[error(
        "there is no {}: `holdfast flash --list` shows what is plugged in{}",
        .0.display(), if_file(.0)
    )]
    NoDevice(PathBuf),
    /// Neither a block device nor a file.
    #[error("{0} is neither a disk nor a file: `holdfast flash --list` shows what is plugged in")]
    NoDisk(PathBuf),
    /// This user may not write to the device.
    #[error("{path} may not be written by you: {advice}")]
    NoRights {
        /// The device.
        path: PathBuf,
        /// Whose it is, and what helps.
        advice: String,
    },
    /// Not the medium that was looked at.
    #[error(
        "{0} is not what it was a moment ago: another medium came in its place; nothing was written"
    )]
    Swapped(PathBuf),
    /// The kernel or another program has the device.
    #[error(
        "{0} is in use (by a file system, a volume manager, or another program that writes it): \
         unmount it, or end what uses it, and try again"
    )]
    Busy(PathBuf),
    /// The device went away.
    #[error(
        "{path} went away after {done} of {total} MiB: pulled out, or its contact or power failed. \
         It holds no system and does not start: flash it again"
    )]
    Gone {
        /// The device.
        path: PathBuf,
        /// MiB written.
        done: u64,
        /// MiB to be written, as far as known.
        total: u64,
    },
    /// A write failed on a device that is still there.
    #[error(
        "{path} cannot be written at byte {offset} (after {done} of {total} MiB): {source}. It holds no \
         system and does not start: try again, and use another card if it fails again"
    )]
    Write {
        /// The device.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// MiB written.
        done: u64,
        /// MiB to be written, as far as known.
        total: u64,
        /// The operating system's reason.
        source: io::Error,
    },
    /// What was read back is not what was written.
    #[error("{path} is a bad card: {bad}. Do not use it")]
    BadCard {
        /// The device.
        path: PathBuf,
        /// Which blocks.
        bad: BadBlocks,
    },
    /// Someone stopped it.
    #[error("stopped: {path} holds no whole system and does not start; flash it again")]
    Stopped {
        /// The device.
        path: PathBuf,
    },
    /// Random numbers cannot be had.
    #[error("no random numbers for the disk's identity: {0}")]
    Random(getrandom::Error),
}

/// What helps where a file was meant.
fn if_file(path: &Path) -> &'static str {
    match path.starts_with("/dev") {
        true => "",
        false => "; --size SIZE makes it, as a file that stands for a disk",
    }
}

/// Adds what was tried to an error of the operating system.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        })
    }
}
