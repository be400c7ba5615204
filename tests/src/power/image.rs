//! A disk at one moment: pages over the image that the machine began with.

use super::cuts::Part;
use super::log::{Log, Op};
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
const SECTOR: u64 = 512;

/// The image that the machine began with; behind its end the disk is empty.
#[derive(Debug)]
pub struct Base {
    file: File,
    /// The image's length in bytes.
    image: u64,
    /// The disk's.
    disk: u64,
}

impl Base {
    /// A raw image on a disk of `disk` bytes.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, disk: u64) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let image = file.metadata()?.len();
        Ok(Self { file, image, disk })
    }

    fn page(&self, page: u64) -> [u8; PAGE as usize] {
        let mut out = [0; PAGE as usize];
        let at = page * PAGE;
        if at < self.image {
            let here = usize::try_from((self.image - at).min(PAGE)).unwrap_or(0);
            // what cannot be read is found by the judge, as zeros
            let _ = self.file.read_exact_at(&mut out[..here], at);
        }
        out
    }
}

/// The disk, cheap to clone.
#[derive(Debug, Clone)]
pub struct Image {
    base: Arc<Base>,
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

impl Image {
    /// As the machine found it.
    #[must_use]
    pub fn new(base: Arc<Base>) -> Self {
        Self {
            base,
            pages: BTreeMap::new(),
        }
    }

    /// The disk's length in bytes.
    #[must_use]
    pub fn disk(&self) -> u64 {
        self.base.disk
    }

    /// Reads.
    pub fn read(&self, at: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let here = at + done as u64;
            let within = usize::try_from(here % PAGE).unwrap_or(0);
            let n = (PAGE as usize - within).min(out.len() - done);
            let target = &mut out[done..done + n];
            match self.pages.get(&(here / PAGE)) {
                Some(page) => target.copy_from_slice(&page[within..within + n]),
                None => target.copy_from_slice(&self.base.page(here / PAGE)[within..within + n]),
            }
            done += n;
        }
    }

    /// Reads into memory of its own.
    #[must_use]
    pub fn bytes(&self, at: u64, len: u64) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(len).unwrap_or(0)];
        self.read(at, &mut out);
        out
    }

    /// Writes.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let here = at + done as u64;
            let within = usize::try_from(here % PAGE).unwrap_or(0);
            let n = (PAGE as usize - within).min(bytes.len() - done);
            let base = &self.base;
            let page = self
                .pages
                .entry(here / PAGE)
                .or_insert_with(|| Arc::new(base.page(here / PAGE)));
            Arc::make_mut(page)[within..within + n].copy_from_slice(&bytes[done..done + n]);
            done += n;
        }
    }

    /// Does what `op` did, or only the `part` of it.
    pub fn apply(&mut self, log: &Log, op: &Op, part: Option<Part>) {
        let extent = op.extent();
        let len = extent.end - extent.start;
        let (from, to) = match part {
            Some(Part { from, to }) => ((from * SECTOR).min(len), (to * SECTOR).min(len)),
            None => (0, len),
        };
        match op {
            Op::Write { .. } => {
                let range = |n| usize::try_from(n).unwrap_or(0);
                self.write(extent.start + from, &log.data(op)[range(from)..range(to)]);
            }
            Op::Discard { .. } => self.zero(extent.start + from, to - from),
            Op::Flush => {}
        }
    }

    fn zero(&mut self, at: u64, len: u64) {
        let zeros = [0; PAGE as usize];
        let mut done = 0;
        while done < len {
            let n = (PAGE - (at + done) % PAGE).min(len - done);
            self.write(at + done, &zeros[..usize::try_from(n).unwrap_or(0)]);
            done += n;
        }
    }

    /// A part of it as a sparse file, rewound.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn file_of(&self, at: u64, len: u64) -> Result<tempfile::NamedTempFile> {
        let file = tempfile::NamedTempFile::new()?;
        file.as_file().set_len(len)?;
        self.put_pages(file.as_file(), at, len, 0)?;
        Ok(file)
    }

    /// The whole disk as a raw, sparse file at `path`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut file = File::create(path).with_context(|| format!("make {}", path.display()))?;
        file.set_len(self.disk())?;
        let buffer = 1 << 20;
        let mut at = 0;
        while at < self.base.image {
            let n = usize::try_from((self.base.image - at).min(buffer)).unwrap_or(0);
            let mut bytes = vec![0; n];
            self.base.file.read_exact_at(&mut bytes, at)?;
            if bytes.iter().any(|b| *b != 0) {
                file.seek(SeekFrom::Start(at))?;
                file.write_all(&bytes)?;
            }
            at += n as u64;
        }
        for (page, bytes) in &self.pages {
            file.write_all_at(&bytes[..], page * PAGE)?;
        }
        Ok(())
    }

    fn put_pages(&self, file: &File, at: u64, len: u64, to: u64) -> Result<()> {
        let mut done = 0;
        let mut page = [0; PAGE as usize];
        while done < len {
            self.read(at + done, &mut page);
            if page.iter().any(|b| *b != 0) {
                file.write_all_at(&page, to + done)?;
            }
            done += PAGE;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Arc<Base> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&[1; 5000], 0).unwrap();
        Arc::new(Base::open(file.path(), 4 * PAGE).unwrap())
    }

    #[test]
    fn writes_lie_over_the_base_and_a_clone_keeps_its_own() {
        let mut image = Image::new(base());
        assert_eq!(image.bytes(4990, 20), [[1; 10], [0; 10]].concat());
        let before = image.clone();
        image.write(4094, &[9; 4]);
        assert_eq!(image.bytes(4092, 8), [1, 1, 9, 9, 9, 9, 1, 1]);
        assert_eq!(before.bytes(4092, 8), [1; 8]);
        let file = image.file_of(0, 3 * PAGE).unwrap();
        assert_eq!(
            std::fs::read(file.path()).unwrap(),
            image.bytes(0, 3 * PAGE)
        );
        let saved = tempfile::NamedTempFile::new().unwrap();
        image.save(saved.path()).unwrap();
        assert_eq!(
            std::fs::read(saved.path()).unwrap(),
            image.bytes(0, 4 * PAGE)
        );
    }
}
