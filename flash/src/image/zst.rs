//! An image packed with zstd, unpacked while it is written.

use super::Source;
use crate::Range;
use crate::error::{Error, IoContext as _, Result};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use zstd::stream::read::Decoder;

/// The largest window that is accepted (`zstd --long=27`), as a power of two: 128 MiB.
const WINDOW_LOG: u32 = 27;

pub(super) struct Zst {
    decoder: Decoder<'static, BufReader<File>>,
    path: PathBuf,
    /// How much came out.
    at: u64,
    ended: bool,
}

impl Zst {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).at("open", path)?;
        let mut decoder = Decoder::new(file).at("read", path)?;
        decoder.window_log_max(WINDOW_LOG).at("read", path)?;
        Ok(Self {
            decoder,
            path: path.to_owned(),
            at: 0,
            ended: false,
        })
    }

    /// Fills as much as there is; how much that was.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() && !self.ended {
            match self.decoder.read(&mut buffer[filled..]) {
                Ok(0) => self.ended = true,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    return Err(Error::Image {
                        path: self.path.clone(),
                        reason: format!(
                            "it cannot be unpacked beyond byte {} of the image ({e}): it is damaged or \
                             incomplete, fetch it again",
                            self.at + filled as u64
                        ),
                    });
                }
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }

    fn skip_to(&mut self, offset: u64) -> Result<()> {
        let mut scratch = Vec::new();
        while self.at < offset && !self.ended {
            scratch.resize((offset - self.at).min(1 << 20) as usize, 0);
            self.fill(&mut scratch)?;
        }
        Ok(())
    }
}

impl Source for Zst {
    fn next_data(&mut self, from: u64) -> Result<Option<Range>> {
        // What comes is known when it is unpacked.
        Ok((!self.ended).then_some(from..u64::MAX))
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.skip_to(offset)?;
        let filled = self.fill(buffer)?;
        buffer[filled..].fill(0);
        Ok(())
    }

    fn finish(&mut self, len: u64) -> Result<()> {
        self.skip_to(len)?;
        if self.at < len {
            return Err(Error::Image {
                path: self.path.clone(),
                reason: format!(
                    "it is incomplete: {} bytes are packed in it, its partition table says {len}",
                    self.at
                ),
            });
        }
        Ok(())
    }

    fn total(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    fn source(bytes: &[u8]) -> (Zst, tempfile::NamedTempFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        (Zst::open(file.path()).unwrap(), file)
    }

    #[test]
    fn unpacks_frames_one_after_the_other_and_skips() {
        let plain: Vec<u8> = (0..300_000u32).map(|n| (n / 7) as u8).collect();
        let (mut zst, _file) =
            source(&[packed(&plain[..100_000]), packed(&plain[100_000..])].concat());
        let mut buffer = vec![0; 1000];
        zst.read_at(99_500, &mut buffer).unwrap();
        assert_eq!(buffer, plain[99_500..100_500]);
        zst.read_at(299_500, &mut buffer).unwrap();
        assert_eq!(buffer[..500], plain[299_500..]);
        assert!(buffer[500..].iter().all(|b| *b == 0));
        assert_eq!(zst.next_data(300_000).unwrap(), None);
        zst.finish(300_000).unwrap();
        assert!(zst.finish(300_001).is_err());
    }

    #[test]
    fn a_download_that_broke_off_is_said() {
        let plain: Vec<u8> = (0..3_000_000u32)
            .map(|n| (n.wrapping_mul(n) >> 5) as u8)
            .collect();
        let whole = packed(&plain);
        let (mut zst, _file) = source(&whole[..whole.len() / 2]);
        let error = zst
            .read_at(0, &mut vec![0; plain.len()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("incomplete"), "{error}");
    }
}
