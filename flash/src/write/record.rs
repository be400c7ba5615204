//! What was written, so that it can be compared: a sum for each 4 KiB, taken before the write.

use crate::Range;

/// The unit of comparison, in bytes: what a medium reads or loses at once.
pub(crate) const UNIT: usize = 4096;

/// Data at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Data {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// CRC-32 of each unit: cards fail, they do not forge.
    pub(crate) sums: Vec<u32>,
}

/// Everything that was written, in order.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) data: Vec<Data>,
    pub(crate) zeros: Vec<Range>,
    pub(crate) written: u64,
    pub(crate) zeroed: u64,
}

impl Record {
    pub(crate) fn data(&mut self, data: Data) {
        self.written += data.len;
        self.data.push(data);
    }

    pub(crate) fn zero(&mut self, range: Range) {
        self.zeroed += range.end - range.start;
        self.zeros.push(range);
    }
}

/// The sums of `bytes`.
pub(crate) fn sums(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(UNIT).map(crc32fast::hash).collect()
}
