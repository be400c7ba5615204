//! The record of a disk's writes, in the format of the kernel's dm-log-writes target (Linux
//! `Documentation/admin-guide/device-mapper/log-writes.rst`, `drivers/md/dm-log-writes.c`; QEMU's
//! `blklogwrites` writes the same): a superblock, then for each operation a block that describes it
//! and its data.

use anyhow::{Context as _, Result, ensure};
use std::ops::Range;
use std::path::Path;

const MAGIC: u64 = 0x6a_736677736872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// Sectors are counted in these bytes in the log, whatever the disk's own.
const SECTOR: u64 = 512;

/// One operation on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Bytes written.
    Write {
        /// Where on the disk, in bytes.
        at: u64,
        /// Which bytes of the log.
        data: Range<usize>,
        /// On the medium when it ended.
        fua: bool,
    },
    /// Bytes given up: they read as zeros, or as before.
    Discard {
        /// Where on the disk, in bytes.
        at: u64,
        /// How many.
        len: u64,
    },
    /// All before is on the medium.
    Flush,
}

impl Op {
    /// The bytes of the disk that it touches.
    #[must_use]
    pub fn extent(&self) -> Range<u64> {
        match self {
            Self::Write { at, data, .. } => *at..at + data.len() as u64,
            Self::Discard { at, len } => *at..at + len,
            Self::Flush => 0..0,
        }
    }
}

/// What was recorded.
#[derive(Debug)]
pub struct Log {
    bytes: Vec<u8>,
    ops: Vec<Op>,
    /// Where each operation ends in the file.
    ends: Vec<usize>,
}

impl Log {
    /// Reads a log's file.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(bytes).with_context(|| format!("{}", path.display()))
    }

    /// Reads a log. One that ends within an operation ends before it: its writer was killed.
    ///
    /// # Errors
    /// It does not begin as one.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        ensure!(
            word(&bytes, 0) == Some(MAGIC),
            "not a log of writes: wrong magic"
        );
        ensure!(word(&bytes, 8) == Some(1), "a log of an unknown version");
        let sector = bytes
            .get(24..28)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_le_bytes) as usize;
        ensure!(
            sector.is_power_of_two() && (512..=4096).contains(&sector),
            "sectors of {sector} bytes"
        );
        let (mut ops, mut ends, mut at) = (vec![], vec![], sector);
        while let Some((found, next)) = entry(&bytes, at, sector) {
            for op in found {
                ops.push(op);
                ends.push(next);
            }
            at = next;
        }
        Ok(Self { bytes, ops, ends })
    }

    /// The operations, in order.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The bytes that an operation wrote; nothing for the others.
    #[must_use]
    pub fn data(&self, op: &Op) -> &[u8] {
        match op {
            Op::Write { data, .. } => &self.bytes[data.clone()],
            _ => &[],
        }
    }

    /// How many operations were in the file when it was `len` bytes long.
    #[must_use]
    pub fn until(&self, len: u64) -> usize {
        self.ends.partition_point(|end| *end as u64 <= len)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(word.try_into().ok()?))
}

/// The operations of one entry, and where the next one begins: a write with a flush before it is two.
fn entry(bytes: &[u8], at: usize, sector: usize) -> Option<(Vec<Op>, usize)> {
    let [place, count, flags] = [0, 8, 16].map(|field| word(bytes, at + field));
    let (place, count, flags) = (place?, count?, flags?);
    let data = at.checked_add(sector)?;
    bytes.get(at..data)?;
    let start = place.checked_mul(SECTOR)?;
    let len = count.checked_mul(SECTOR)?;
    let mut ops = vec![];
    if flags & FLUSH != 0 {
        ops.push(Op::Flush);
    }
    if flags & DISCARD != 0 {
        ops.push(Op::Discard { at: start, len });
        return Some((ops, data));
    }
    let end = data.checked_add(usize::try_from(len).ok()?)?;
    bytes.get(data..end)?;
    if len > 0 {
        ops.push(Op::Write {
            at: start,
            data: data..end,
            fua: flags & FUA != 0,
        });
    }
    // Zeroed space behind the last entry is none.
    (!ops.is_empty()).then_some((ops, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: &[(u64, u64, &[u8])]) -> Vec<u8> {
        let mut out = vec![0; 512];
        out[..8].copy_from_slice(&MAGIC.to_le_bytes());
        out[8] = 1;
        out[24..28].copy_from_slice(&512u32.to_le_bytes());
        for (at, flags, data) in entries {
            let mut head = vec![0; 512];
            head[..8].copy_from_slice(&(at / 512).to_le_bytes());
            head[8..16].copy_from_slice(&(data.len() as u64 / 512).to_le_bytes());
            head[16..24].copy_from_slice(&flags.to_le_bytes());
            out.extend(head);
            out.extend_from_slice(data);
        }
        out
    }

    #[test]
    fn writes_flushes_and_discards_come_out_as_they_went_in() {
        let mut bytes = log(&[
            (1024, 0, &[7; 1024]),
            (0, FLUSH, &[]),
            (512, FUA, &[9; 512]),
        ]);
        let whole = Log::parse(bytes.clone()).unwrap();
        assert_eq!(whole.ops().len(), 3);
        assert_eq!(whole.ops()[0].extent(), 1024..2048);
        assert_eq!(whole.data(&whole.ops()[0]), [7; 1024]);
        assert_eq!(whole.ops()[1], Op::Flush);
        assert!(matches!(
            whole.ops()[2],
            Op::Write {
                at: 512,
                fua: true,
                ..
            }
        ));
        assert_eq!(whole.until(0), 0);
        assert_eq!(whole.until(512 + 512 + 1024), 1);
        bytes.truncate(bytes.len() - 1);
        assert_eq!(Log::parse(bytes).unwrap().ops().len(), 2);
        assert!(Log::parse(vec![0; 4096]).is_err());
    }
}
