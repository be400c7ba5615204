//! The image file: opened whatever its packing, looked into before a byte is written.

mod fat;
mod inspect;
mod qcow2;
mod raw;
mod zst;

pub(crate) use fat::{id_places, with_file};
pub use inspect::Image;
pub(crate) use inspect::SECTOR;

use crate::Range;
use crate::error::{Error, IoContext as _, Result};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// An image's bytes, read once from front to back.
pub(crate) trait Source: Send {
    /// The next stretch, from `from` on, that may hold something else than zeros.
    fn next_data(&mut self, from: u64) -> Result<Option<Range>>;
    /// Fills `buffer` from `offset`, which never goes back. What lies behind the end is zero.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// Everything up to `len` was read or passed over: makes sure that it was there.
    fn finish(&mut self, len: u64) -> Result<()>;
    /// How much of the file there is to go through, where that is known beforehand, in bytes of
    /// the image.
    fn total(&self) -> Option<u64>;
}

/// What a file is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Raw,
    Zstd,
    /// Not flashed; what to do instead.
    Foreign(&'static str),
}

impl Kind {
    pub(crate) fn of(head: &[u8]) -> Self {
        let foreign = [
            (
                &b"QFI\xfb"[..],
                "it is a qcow2 image, for virtual machines; `holdfast build --formats raw` makes one for \
                 disks (or `qemu-img convert -O raw`)",
            ),
            (
                b"HFBUNDL1",
                "it is an update bundle: `holdfast upgrade NODE BUNDLE` brings it to a node that runs. A new \
                 card needs the .img",
            ),
            (
                b"\x1f\x8b",
                "it is packed with gzip: unpack it first, or pack it with zstd",
            ),
            (
                b"\xfd7zXZ\0",
                "it is packed with xz: unpack it first, or pack it with zstd",
            ),
            (
                b"BZh",
                "it is packed with bzip2: unpack it first, or pack it with zstd",
            ),
            (b"PK\x03\x04", "it is a zip archive: unpack it first"),
        ];
        if let Some((_, words)) = foreign.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Self::Foreign(words);
        }
        match head.starts_with(b"\x28\xb5\x2f\xfd") {
            true => Self::Zstd,
            false => Self::Raw,
        }
    }
}

/// What the file is.
pub(crate) fn kind(path: &Path) -> Result<Kind> {
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NoImage(path.to_owned()));
        }
        opened => opened.at("open", path)?,
    };
    let mut head = Vec::new();
    file.take(16).read_to_end(&mut head).at("read", path)?;
    Ok(Kind::of(&head))
}

/// Opens the file as a source.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Source>> {
    match kind(path)? {
        Kind::Raw => Ok(Box::new(raw::Raw::open(path)?)),
        Kind::Zstd => Ok(Box::new(zst::Zst::open(path)?)),
        Kind::Foreign(reason) => Err(Error::Image {
            path: path.to_owned(),
            reason: reason.into(),
        }),
    }
}
