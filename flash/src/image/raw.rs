//! A raw image, whose holes are not even read.

use super::Source;
use crate::Range;
use crate::error::{IoContext as _, Result};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

pub(super) struct Raw {
    file: File,
    path: PathBuf,
    len: u64,
}

impl Raw {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).at("open", path)?;
        // A hint; without it reading ahead is only less eager.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
        Ok(Self {
            len: file.metadata().at("read", path)?.len(),
            file,
            path: path.to_owned(),
        })
    }

    fn seek(&self, from: u64, whence: Whence) -> Option<u64> {
        let at = lseek(&self.file, i64::try_from(from).ok()?, whence).ok()?;
        u64::try_from(at).ok()
    }

    fn data_from(&self, from: u64) -> Option<Range> {
        if from >= self.len {
            return None;
        }
        match lseek(&self.file, i64::try_from(from).ok()?, Whence::SeekData) {
            Ok(at) => {
                let start = u64::try_from(at).ok()?;
                let end = self.seek(start, Whence::SeekHole).unwrap_or(self.len);
                Some(start..end.max(start + 1))
            }
            Err(nix::errno::Errno::ENXIO) => None,
            // A file system that knows no holes.
            Err(_) => Some(from..self.len),
        }
    }
}

impl Source for Raw {
    fn next_data(&mut self, from: u64) -> Result<Option<Range>> {
        Ok(self.data_from(from))
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e).at("read", &self.path),
            }
        }
        buffer[filled..].fill(0);
        Ok(())
    }

    fn finish(&mut self, _len: u64) -> Result<()> {
        // Its length was compared before.
        Ok(())
    }

    fn total(&self) -> Option<u64> {
        let (mut at, mut sum) = (0, 0);
        while let Some(data) = self.data_from(at) {
            sum += data.end - data.start;
            at = data.end;
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_passed_over_and_the_end_is_zero() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(3 << 20).unwrap();
        file.as_file().write_all_at(&[7; 4096], 2 << 20).unwrap();
        let mut raw = Raw::open(file.path()).unwrap();
        let data = raw.next_data(0).unwrap().unwrap();
        assert!(data.start <= 2 << 20 && data.end >= (2 << 20) + 4096);
        let mut buffer = vec![9; 8192];
        raw.read_at((2 << 20) + 4000, &mut buffer).unwrap();
        assert!(buffer[..96].iter().all(|b| *b == 7) && buffer[96..].iter().all(|b| *b == 0));
        raw.read_at((3 << 20) - 10, &mut buffer).unwrap();
        assert!(buffer.iter().all(|b| *b == 0));
        assert_eq!(raw.next_data(3 << 20).unwrap(), None);
        assert!(raw.total().unwrap() <= 3 << 20);
    }
}
