//! Images in QEMU's format (QEMU `docs/interop/qcow2.txt`, version 3): only clusters that hold
//! something, none of them compressed, refcounts of 16 bits.

use std::{
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::Path,
};

use super::piece::{Piece, chunks};
use crate::error::{IoContext, Result};

const CLUSTER: u64 = 64 << 10;
/// Entries of an L2 table, and refcounts of a block.
const L2_ENTRIES: u64 = CLUSTER / 8;
const REFCOUNTS: u64 = CLUSTER / 2;
/// "Refcount is exactly one": may be written in place.
const COPIED: u64 = 1 << 63;

/// Writes a disk of `len` bytes.
pub(crate) fn write(pieces: &[Piece], len: u64, to: &Path) -> Result<()> {
    let clusters = len.div_ceil(CLUSTER);
    let l1_entries = clusters.div_ceil(L2_ENTRIES);
    // Header, L1, then data and L2 tables in turn, refcounts last.
    let l1_at = CLUSTER;
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let mut next = 1 + l1_clusters;
    let mut l1 = vec![0u64; l1_entries as usize];
    let mut l2 = vec![None; l1_entries as usize];
    let file = File::create(to).at("create", to)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.seek(SeekFrom::Start(next * CLUSTER)).at("write", to)?;
    chunks(pieces, |at, bytes| {
        let cluster = at / CLUSTER;
        let table = l2[(cluster / L2_ENTRIES) as usize]
            .get_or_insert_with(|| vec![0u64; L2_ENTRIES as usize]);
        table[(cluster % L2_ENTRIES) as usize] = (next * CLUSTER) | COPIED;
        next += 1;
        out.write_all(bytes).at("write", to)?;
        out.write_all(&vec![0; CLUSTER as usize - bytes.len()])
            .at("write", to)
    })?;
    for (entry, table) in l1.iter_mut().zip(&l2) {
        if let Some(table) = table {
            *entry = (next * CLUSTER) | COPIED;
            next += 1;
            out.write_all(&big_endian(table)).at("write", to)?;
        }
    }
    let (table_clusters, blocks) = refcount_size(next);
    let refcount_at = next * CLUSTER;
    let total = next + table_clusters + blocks;
    let table: Vec<u64> = (0..blocks)
        .map(|b| refcount_at + (table_clusters + b) * CLUSTER)
        .collect();
    let mut table = big_endian(&table);
    table.resize((table_clusters * CLUSTER) as usize, 0);
    out.write_all(&table).at("write", to)?;
    let mut counts = vec![0u8; (blocks * CLUSTER) as usize];
    counts
        .chunks_exact_mut(2)
        .take(total as usize)
        .for_each(|c| c[1] = 1);
    out.write_all(&counts).at("write", to)?;

    let mut head = header(
        len,
        l1_entries as u32,
        l1_at,
        refcount_at,
        table_clusters as u32,
    );
    head.resize(CLUSTER as usize, 0);
    out.seek(SeekFrom::Start(0)).at("write", to)?;
    out.write_all(&head).at("write", to)?;
    let mut l1 = big_endian(&l1);
    l1.resize((l1_clusters * CLUSTER) as usize, 0);
    out.write_all(&l1).at("write", to)?;
    out.flush().at("write", to)
}

/// Clusters for the refcount table and its blocks, which count themselves too.
fn refcount_size(used: u64) -> (u64, u64) {
    let (mut table, mut blocks) = (1, 1);
    loop {
        let need = (used + table + blocks).div_ceil(REFCOUNTS);
        let need_table = (need * 8).div_ceil(CLUSTER);
        if need <= blocks && need_table <= table {
            return (table, blocks);
        }
        (table, blocks) = (need_table.max(table), need.max(blocks));
    }
}

fn header(
    len: u64,
    l1_entries: u32,
    l1_at: u64,
    refcount_at: u64,
    refcount_clusters: u32,
) -> Vec<u8> {
    let mut h = b"QFI\xfb".to_vec();
    let put4 = |h: &mut Vec<u8>, v: u32| h.extend_from_slice(&v.to_be_bytes());
    let put8 = |h: &mut Vec<u8>, v: u64| h.extend_from_slice(&v.to_be_bytes());
    put4(&mut h, 3);
    put8(&mut h, 0); // no backing file
    put4(&mut h, 0);
    put4(&mut h, CLUSTER.trailing_zeros());
    put8(&mut h, len);
    put4(&mut h, 0); // no encryption
    put4(&mut h, l1_entries);
    put8(&mut h, l1_at);
    put8(&mut h, refcount_at);
    put4(&mut h, refcount_clusters);
    put4(&mut h, 0); // no snapshots
    put8(&mut h, 0);
    for _ in 0..3 {
        put8(&mut h, 0); // no feature of any kind
    }
    put4(&mut h, 4); // refcounts of 2^4 bits
    put4(&mut h, 104);
    h
}

fn big_endian(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::piece::PieceData;

    #[test]
    fn refcounts_count_themselves() {
        for used in [1, REFCOUNTS - 2, REFCOUNTS - 1, REFCOUNTS, 10 * REFCOUNTS] {
            let (table, blocks) = refcount_size(used);
            assert!((used + table + blocks).div_ceil(REFCOUNTS) <= blocks);
        }
    }

    #[test]
    fn a_cluster_is_found_through_its_tables() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.qcow2");
        let pieces = [
            Piece {
                offset: 0,
                data: PieceData::Bytes(vec![1; 512]),
            },
            Piece {
                offset: 1 << 30,
                data: PieceData::Bytes(vec![2; 2 << 16]),
            },
        ];
        write(&pieces, 3 << 30, &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let word =
            |at: u64| u64::from_be_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap());
        let cluster = (1u64 << 30) / CLUSTER + 1;
        let l2 = word(CLUSTER + 8 * (cluster / L2_ENTRIES)) & !COPIED;
        let at = word(l2 + 8 * (cluster % L2_ENTRIES)) & !COPIED;
        assert_eq!(bytes[at as usize..(at + CLUSTER) as usize], [2; 1 << 16]);
        assert_eq!(bytes.len() as u64 % CLUSTER, 0);
    }
}
