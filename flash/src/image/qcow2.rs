//! An image in QEMU's format (QEMU `docs/interop/qcow2.rst`), to look into: such images go to
//! virtual machines and are not flashed. No backing file, no compressed clusters: `holdfast build`
//! writes neither.

use super::Source;
use crate::Range;
use crate::error::{Error, IoContext as _, Result};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Bits 9 to 55 of an entry: where its cluster lies.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// "All zeros" in an L2 entry.
const ZERO: u64 = 1;
/// "Compressed" in an L2 entry.
const COMPRESSED: u64 = 1 << 62;
/// Longer L1 tables are of no disk that we make: 32 Ki entries are 16 TiB in clusters of 64 KiB.
const L1_MAX: u32 = 32 << 10;

pub(super) struct Qcow2 {
    file: File,
    path: PathBuf,
    cluster_bits: u32,
    len: u64,
    l1: Vec<u64>,
}

impl Qcow2 {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).at("open", path)?;
        let mut head = [0; 48];
        file.read_exact_at(&mut head, 0).at("read", path)?;
        let bad = |reason: &str| Error::Image {
            path: path.to_owned(),
            reason: reason.into(),
        };
        let (backing, encrypted) = (word8(&head, 8), word4(&head, 32));
        let (cluster_bits, l1_entries) = (word4(&head, 20), word4(&head, 36));
        if !head.starts_with(b"QFI\xfb")
            || backing != 0
            || encrypted != 0
            || !(9..=21).contains(&cluster_bits)
            || l1_entries > L1_MAX
        {
            return Err(bad(
                "it is no qcow2 image of the kind that `holdfast build` writes",
            ));
        }
        let mut l1 = vec![0; l1_entries as usize * 8];
        file.read_exact_at(&mut l1, word8(&head, 40))
            .at("read", path)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            cluster_bits,
            len: word8(&head, 24),
            l1: l1.chunks_exact(8).map(|entry| word8(entry, 0)).collect(),
        })
    }

    /// Where the cluster that holds `at` lies in the file; none: it is all zeros.
    fn cluster(&self, at: u64) -> Result<Option<u64>> {
        let number = at >> self.cluster_bits;
        let l2_bits = self.cluster_bits - 3;
        let l1 = usize::try_from(number >> l2_bits).ok();
        let table = l1.and_then(|i| self.l1.get(i)).map_or(0, |e| e & OFFSET);
        if table == 0 {
            return Ok(None);
        }
        let mut entry = [0; 8];
        let index = number & ((1 << l2_bits) - 1);
        self.file
            .read_exact_at(&mut entry, table + 8 * index)
            .at("read", &self.path)?;
        let entry = word8(&entry, 0);
        if entry & COMPRESSED != 0 {
            return Err(Error::Image {
                path: self.path.clone(),
                reason: "it has compressed clusters".into(),
            });
        }
        Ok((entry & ZERO == 0 && entry & OFFSET != 0).then_some(entry & OFFSET))
    }
}

impl Source for Qcow2 {
    fn next_data(&mut self, from: u64) -> Result<Option<Range>> {
        let size = 1 << self.cluster_bits;
        let mut at = from;
        while at < self.len {
            let end = (at / size + 1) * size;
            if self.cluster(at)?.is_some() {
                return Ok(Some(at..end));
            }
            at = end;
        }
        Ok(None)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let size = 1_u64 << self.cluster_bits;
        let mut rest = buffer;
        let mut at = offset;
        while !rest.is_empty() {
            let within = at % size;
            let n = rest.len().min((size - within) as usize);
            let (now, later) = rest.split_at_mut(n);
            match self.cluster(at)? {
                Some(lies) => self
                    .file
                    .read_exact_at(now, lies + within)
                    .at("read", &self.path)?,
                None => now.fill(0),
            }
            at += n as u64;
            rest = later;
        }
        Ok(())
    }

    fn finish(&mut self, _len: u64) -> Result<()> {
        Ok(())
    }

    fn total(&self) -> Option<u64> {
        None
    }
}

fn word4(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..].first_chunk().copied();
    u32::from_be_bytes(word.unwrap_or_default())
}

fn word8(bytes: &[u8], at: usize) -> u64 {
    let word = bytes[at..].first_chunk().copied();
    u64::from_be_bytes(word.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clusters of 512 bytes: header, L1 of two entries, L2 (64 entries) for the second half, data.
    fn image(entry: u64) -> tempfile::NamedTempFile {
        let mut bytes = vec![0; 2048];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        bytes[20..24].copy_from_slice(&9_u32.to_be_bytes());
        bytes[24..32].copy_from_slice(&(128 * 512_u64).to_be_bytes());
        bytes[36..40].copy_from_slice(&2_u32.to_be_bytes());
        bytes[40..48].copy_from_slice(&512_u64.to_be_bytes());
        bytes[520..528].copy_from_slice(&(1024 | 1_u64 << 63).to_be_bytes());
        bytes[1024 + 16..1024 + 24].copy_from_slice(&entry.to_be_bytes());
        bytes[1536..].fill(7);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn what_is_there_is_found_through_both_tables() {
        let file = image(1536 | 1 << 63);
        let mut it = Qcow2::open(file.path()).unwrap();
        let at = 66 * 512;
        assert_eq!(it.next_data(0).unwrap(), Some(at..at + 512));
        assert_eq!(it.next_data(at + 512).unwrap(), None);
        let mut buffer = [9; 1024];
        it.read_at(at - 100, &mut buffer).unwrap();
        assert!(buffer[..100].iter().all(|b| *b == 0));
        assert!(buffer[100..612].iter().all(|b| *b == 7));
        assert!(buffer[612..].iter().all(|b| *b == 0));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let packed = image(1536 | COMPRESSED);
        assert!(Qcow2::open(packed.path()).unwrap().next_data(0).is_err());
        let zeros = image(1536 | ZERO);
        assert_eq!(
            Qcow2::open(zeros.path()).unwrap().next_data(0).unwrap(),
            None
        );
        let mut bytes = std::fs::read(zeros.path()).unwrap();
        bytes[8] = 1;
        std::fs::write(zeros.path(), &bytes).unwrap();
        assert!(Qcow2::open(zeros.path()).is_err());
        std::fs::write(zeros.path(), &bytes[..20]).unwrap();
        assert!(Qcow2::open(zeros.path()).is_err());
    }
}
