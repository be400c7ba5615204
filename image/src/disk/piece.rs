//! What lies where on a disk, before any file is written.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::error::{IoContext, Result};

/// Zero stretches of this length and alignment are left out of files, in bytes.
const HOLE: usize = 64 << 10;

/// Bytes at an offset of the disk.
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) data: PieceData,
}

pub(crate) enum PieceData {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// Calls `use_chunk` with the offset and bytes of every stretch (aligned to [`HOLE`], as long) that
/// is not all zero, in the order of the disk. `pieces` are sorted, aligned to 64 KiB and apart.
pub(crate) fn chunks(
    pieces: &[Piece],
    mut use_chunk: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut used = |at: u64, bytes: &[u8]| match bytes.iter().all(|b| *b == 0) {
        true => Ok(()),
        false => use_chunk(at, bytes),
    };
    for piece in pieces {
        let mut at = piece.offset;
        match &piece.data {
            PieceData::Bytes(bytes) => {
                for chunk in bytes.chunks(HOLE) {
                    used(at, chunk)?;
                    at += chunk.len() as u64;
                }
            }
            PieceData::File(path) => {
                let mut file = File::open(path).at("open", path)?;
                let mut chunk = Vec::with_capacity(HOLE);
                loop {
                    chunk.clear();
                    let n = (&mut file)
                        .take(HOLE as u64)
                        .read_to_end(&mut chunk)
                        .at("read", path)?;
                    if n == 0 {
                        break;
                    }
                    used(at, &chunk)?;
                    at += n as u64;
                }
            }
        }
    }
    Ok(())
}

/// Writes a raw image of `len` bytes; what no piece names is a hole.
pub(crate) fn write_raw(pieces: &[Piece], len: u64, to: &Path) -> Result<()> {
    let mut file = File::create(to).at("create", to)?;
    file.set_len(len).at("write", to)?;
    for piece in pieces {
        match &piece.data {
            // The kernel copies, or shares the blocks where the file system can.
            PieceData::File(path) => {
                let mut from = File::open(path).at("open", path)?;
                file.seek(SeekFrom::Start(piece.offset)).at("write", to)?;
                std::io::copy(&mut from, &mut file).at("write", to)?;
            }
            PieceData::Bytes(_) => chunks(std::slice::from_ref(piece), |at, bytes| {
                file.seek(SeekFrom::Start(at)).at("write", to)?;
                file.write_all(bytes).at("write", to)
            })?,
        }
    }
    Ok(())
}
