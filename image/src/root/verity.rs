//! The dm-verity hash tree (Linux `Documentation/admin-guide/device-mapper/verity.rst`): version 1,
//! SHA-256, blocks of 4096 bytes, no salt, no superblock, appended to the data.

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

/// Block size of data and tree, in bytes.
pub const BLOCK: usize = 4096;
const HASH: usize = 32;
const ZEROES: [u8; BLOCK] = [0; BLOCK];

/// The tree over `data` (whole blocks) and its root hash. The highest level comes first, as the
/// kernel looks for it.
#[must_use]
pub fn tree(data: &[u8]) -> (Vec<u8>, [u8; HASH]) {
    let mut levels: Vec<Vec<u8>> = Vec::new();
    let mut level = hash_blocks(data);
    while level.len() > HASH {
        level.resize(level.len().next_multiple_of(BLOCK), 0);
        let above = hash_blocks(&level);
        levels.push(level);
        level = above;
    }
    let mut root = [0; HASH];
    root.copy_from_slice(&level[..HASH]);
    (levels.into_iter().rev().flatten().collect(), root)
}

fn hash_blocks(data: &[u8]) -> Vec<u8> {
    let zero: [u8; HASH] = Sha256::digest(ZEROES).into();
    let mut out = vec![0; data.len().div_ceil(BLOCK).max(1) * HASH];
    out.par_chunks_mut(HASH)
        .zip(data.par_chunks(BLOCK))
        .with_min_len(256)
        .for_each(|(hash, block)| {
            // Padding is common and costs nothing this way.
            let digest = if block == ZEROES {
                zero
            } else {
                Sha256::digest(block).into()
            };
            hash.copy_from_slice(&digest);
        });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_has_no_tree() {
        let data = [7; BLOCK];
        let (tree, root) = tree(&data);
        assert!(tree.is_empty());
        assert_eq!(root, <[u8; 32]>::from(Sha256::digest(data)));
    }

    #[test]
    fn levels_are_stored_from_the_top() {
        // 129 blocks need two leaves blocks and one above them.
        let data: Vec<u8> = (0..129u32).flat_map(|i| [(i % 251) as u8; BLOCK]).collect();
        let (tree, root) = tree(&data);
        assert_eq!(tree.len(), 3 * BLOCK);
        assert_eq!(root, <[u8; 32]>::from(Sha256::digest(&tree[..BLOCK])));
        assert_eq!(tree[..HASH], *Sha256::digest(&tree[BLOCK..2 * BLOCK]));
        assert_eq!(tree[BLOCK..BLOCK + HASH], *Sha256::digest(&data[..BLOCK]));
        assert_eq!(
            tree[2 * BLOCK..2 * BLOCK + HASH],
            *Sha256::digest(&data[128 * BLOCK..])
        );
        assert!(tree[2 * BLOCK + HASH..].iter().all(|b| *b == 0));
    }

    /// Made with `veritysetup format --no-superblock --salt=- --hash=sha256` over 300 blocks whose
    /// bytes are `(block * 7 + offset) % 251`.
    #[test]
    fn the_same_root_as_veritysetup() {
        let data: Vec<u8> = (0..300usize)
            .flat_map(|b| (0..BLOCK).map(move |i| ((b * 7 + i) % 251) as u8))
            .collect();
        let hex: String = tree(&data).1.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "9a4e9b7ce056eac3fced1dab971bd6f112d821a448dbbfde3b7934b8cacb4e13"
        );
    }
}
