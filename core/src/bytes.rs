//! Fields at fixed offsets of a 4096-byte block, little endian, and the block's CRC.
//!
//! The offsets are constants of the formats: an offset beyond the block is a mistake that the
//! first test finds, never a matter of what a disk holds.

/// The size of every block Holdfast writes raw: one write of a disk with 4 KiB sectors.
pub const BLOCK: usize = 4096;
/// One raw block.
pub type Block = [u8; BLOCK];

const CRC_AT: usize = BLOCK - 4;

pub(crate) fn get<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&block[at..at + N]);
    out
}

pub(crate) fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(get(block, at))
}

pub(crate) fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(block, at))
}

pub(crate) fn u64_at(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(block, at))
}

/// Writes the CRC-32 (IEEE 802.3) of all other bytes into the last four.
pub(crate) fn seal(block: &mut Block) {
    let crc = crc32fast::hash(&block[..CRC_AT]);
    put(block, CRC_AT, &crc.to_le_bytes());
}

/// Whether the block's last four bytes are the CRC-32 of the others.
pub(crate) fn sealed(block: &Block) -> bool {
    u32_at(block, CRC_AT) == crc32fast::hash(&block[..CRC_AT])
}

/// Views a slice of exactly one block.
pub(crate) fn as_block(bytes: &[u8]) -> Option<&Block> {
    bytes.try_into().ok()
}
