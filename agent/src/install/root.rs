//! The dm-verity hash tree of a root as its blocks come by (Linux
//! `Documentation/admin-guide/device-mapper/verity.rst`, version 1, SHA-256).

use sha2::{Digest as _, Sha256};

/// Bytes a block, of data and of the tree.
pub const BLOCK: usize = 4096;
const HASH: usize = 32;

/// The hashes of the blocks seen so far.
pub struct Tree {
    salt: Vec<u8>,
    level: Vec<u8>,
}

impl Tree {
    /// Nothing seen yet.
    pub fn new(salt: &[u8]) -> Self {
        Self {
            salt: salt.to_vec(),
            level: Vec::new(),
        }
    }

    /// Takes whole blocks.
    pub fn feed(&mut self, blocks: &[u8]) {
        for block in blocks.chunks(BLOCK) {
            let hash = Sha256::new().chain_update(&self.salt).chain_update(block);
            self.level.extend_from_slice(&hash.finalize());
        }
    }

    /// The tree, the highest level first, and the root hash.
    pub fn finish(mut self) -> (Vec<u8>, [u8; HASH]) {
        let mut levels: Vec<Vec<u8>> = Vec::new();
        while self.level.len() > HASH {
            let mut level = std::mem::take(&mut self.level);
            level.resize(level.len().next_multiple_of(BLOCK), 0);
            self.feed(&level);
            levels.push(level);
        }
        let root = self.level.first_chunk().copied().unwrap_or([0; HASH]);
        (levels.into_iter().rev().flatten().collect(), root)
    }
}

/// Length of the tree over `len` bytes of data.
pub fn tree_len(len: u64) -> u64 {
    const PER_BLOCK: u64 = (BLOCK / HASH) as u64;
    let mut blocks = len / BLOCK as u64;
    let mut all = 0;
    while blocks > 1 {
        blocks = blocks.div_ceil(PER_BLOCK);
        all += blocks;
    }
    all * BLOCK as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_has_no_tree_and_more_have_the_top_first() {
        let mut tree = Tree::new(b"salt");
        tree.feed(&[7; BLOCK]);
        let salted = Sha256::new().chain_update(b"salt").chain_update([7; BLOCK]);
        assert_eq!(tree.finish(), (vec![], salted.finalize().into()));

        let data: Vec<u8> = (0..129u32).flat_map(|i| [(i % 251) as u8; BLOCK]).collect();
        let mut tree = Tree::new(&[]);
        data.chunks(3 * BLOCK).for_each(|c| tree.feed(c));
        let (bytes, root) = tree.finish();
        assert_eq!(bytes.len() as u64, tree_len(data.len() as u64));
        assert_eq!(bytes.len(), 3 * BLOCK);
        assert_eq!(root, <[u8; 32]>::from(Sha256::digest(&bytes[..BLOCK])));
        assert_eq!(bytes[..HASH], *Sha256::digest(&bytes[BLOCK..2 * BLOCK]));
        assert_eq!(bytes[BLOCK..BLOCK + HASH], *Sha256::digest(&data[..BLOCK]));
        assert_eq!((tree_len(4096), tree_len(8192)), (0, 4096));
    }
}
