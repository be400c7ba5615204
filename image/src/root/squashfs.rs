//! The root as a squashfs image (crate `backhand`): zstd, no fragments' worth of privileges
//! needed, the same bytes for the same tree.

use std::{
    cell::RefCell,
    io::{Cursor, Read},
    path::Path,
};

use backhand::{
    DEFAULT_BLOCK_SIZE, FilesystemCompressor, FilesystemWriter, NodeHeader,
    compression::{CompressionOptions, Compressor, Zstd},
};

use super::{
    tree::{Data, Node, Tree},
    verity,
};
use crate::error::{Error, IoContext, Result};

/// Reads its file when the writer comes to it: a root of hundreds of megabytes is never in
/// memory twice.
struct Lazy<'a> {
    data: &'a Data,
    open: RefCell<Option<Cursor<Vec<u8>>>>,
}

impl Read for Lazy<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut open = self.open.borrow_mut();
        let cursor = match &mut *open {
            Some(cursor) => cursor,
            none => {
                let bytes = self
                    .data
                    .read()
                    .map_err(|e| std::io::Error::other(e.to_string()))?;
                none.insert(Cursor::new(bytes))
            }
        };
        let n = cursor.read(buffer)?;
        if n == 0 {
            *open = Some(Cursor::default());
        }
        Ok(n)
    }
}

/// How many bytes a file takes when each of its blocks is compressed as the root's are; a block that
/// does not shrink is kept as it is.
///
/// # Errors
/// When the compressor fails.
pub(crate) fn packed(bytes: &[u8], level: u32) -> Result<u64> {
    let mut sum = 0;
    for block in bytes.chunks(DEFAULT_BLOCK_SIZE as usize) {
        let packed = zstd::bulk::compress(block, level as i32)
            .map_err(|e| Error::build("root file system", e))?;
        sum += packed.len().min(block.len()) as u64;
    }
    Ok(sum)
}

/// Writes `tree` to `to` as squashfs with zstd `level`, all times `date` (Unix seconds), padded
/// to whole verity blocks. Returns its length in bytes.
///
/// # Errors
/// When a file of the tree cannot be read or the image not be written.
pub(crate) fn write(tree: &Tree, level: u32, date: u64, to: &Path) -> Result<u64> {
    let bad = |e: backhand::BackhandError| Error::build("root file system", e);
    let date = u32::try_from(date)
        .map_err(|_| Error::build("root file system", "its date is after 2106"))?;
    let mut fs = FilesystemWriter::default();
    let options = CompressionOptions::Zstd(Zstd {
        compression_level: level,
    });
    fs.set_compressor(FilesystemCompressor::new(Compressor::Zstd, Some(options)).map_err(bad)?);
    fs.set_block_size(DEFAULT_BLOCK_SIZE);
    fs.set_time(date);
    fs.set_root_mode(0o755);
    fs.set_only_root_id();
    fs.set_no_padding();
    for (path, node) in &tree.nodes {
        let header = |mode: u32| NodeHeader::new(mode as u16, 0, 0, date);
        match node {
            Node::Dir { mode } => fs.push_dir(path, header(*mode)),
            Node::Link { target } => fs.push_symlink(target, path, header(0o777)),
            Node::File { mode, data } => {
                let lazy = Lazy {
                    data,
                    open: RefCell::new(None),
                };
                fs.push_file(lazy, path, header(*mode))
            }
        }
        .map_err(bad)?;
    }
    let file = std::fs::File::create(to).at("create", to)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    let (_, len) = fs.write(&mut out).map_err(bad)?;
    let file = out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .at("write", to)?;
    let padded = len.next_multiple_of(verity::BLOCK as u64);
    file.set_len(padded).at("write", to)?;
    Ok(padded)
}
