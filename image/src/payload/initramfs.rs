//! The initramfs: several cpio archives, each a zstd frame of its own, one after another (the
//! kernel unpacks them in turn). What did not change is not compressed again.

use std::{io::Write, path::Path};

use super::cpio::Cpio;
use crate::{
    cache::Cache,
    digest::{Digest, Inputs},
    error::{Error, IoContext, Result},
    modules::Module,
    pack::Slice,
};

/// Where init looks for the modules it loads first.
const MODULE_LIST: &str = "lib/modules.list";
/// Modules rarely change: worth the time.
const MODULES_LEVEL: i32 = 19;
/// Binaries change with each build of a developer; figures in `docs/design.md`.
const BINARY_LEVEL: i32 = 9;

/// The archive with the boot modules of one kernel, from the cache where it has it; `key` stands
/// for the modules.
pub(crate) fn modules(
    cache: &Cache,
    key: &Digest,
    release: &str,
    date: u32,
    modules: &[Module],
) -> Result<Vec<u8>> {
    let key = Inputs::of("initramfs-modules/1")
        .with(key.0)
        .with(date.to_le_bytes())
        .key();
    cached(cache, &key, || {
        let mut cpio = Cpio::new(date);
        let mut list = String::new();
        let dir = format!("lib/modules/{release}/");
        for module in modules {
            cpio.file(&format!("{dir}{}", module.path), 0o644, &module.bytes);
            list += &module.line(&dir);
        }
        cpio.file(MODULE_LIST, 0o644, list.as_bytes());
        compress(&cpio.finish(), MODULES_LEVEL)
    })
}

/// An archive with files that drivers ask for.
pub(crate) fn firmware(cache: &Cache, date: u32, files: &[(&str, &Slice)]) -> Result<Vec<u8>> {
    let mut key = Inputs::of("initramfs-firmware/1").with(date.to_le_bytes());
    for (path, slice) in files {
        key = key
            .with(path)
            .with(&*slice.key)
            .with(slice.offset.to_le_bytes())
            .with(slice.len.to_le_bytes());
    }
    cached(cache, &key.key(), || {
        let mut cpio = Cpio::new(date);
        for (path, slice) in files {
            cpio.file(path, 0o644, &slice.read()?);
        }
        compress(&cpio.finish(), MODULES_LEVEL)
    })
}

/// An archive with one program.
pub(crate) fn program(cache: &Cache, path: &str, date: u32, binary: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(binary).at("read", binary)?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(Error::build(
            binary.display().to_string(),
            "is no ELF program; `make node` builds it",
        ));
    }
    let key = Inputs::of("initramfs-program/1")
        .with(path)
        .with(date.to_le_bytes())
        .with(Digest::of(&bytes).0)
        .key();
    cached(cache, &key, || {
        let mut cpio = Cpio::new(date);
        cpio.file(path, 0o755, &bytes);
        compress(&cpio.finish(), BINARY_LEVEL)
    })
}

/// An archive with the small files that say what the image is.
pub(crate) fn files(date: u32, files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut cpio = Cpio::new(date);
    for (path, bytes) in files {
        cpio.file(path, 0o644, bytes);
    }
    for dir in ["dev", "proc", "sys", "run"] {
        cpio.dir(dir);
    }
    compress(&cpio.finish(), BINARY_LEVEL)
}

fn cached(cache: &Cache, key: &Digest, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let (path, _) = cache.stage("initramfs", key, |to| {
        std::fs::write(to, make()?).at("write", to)
    })?;
    std::fs::read(&path).at("read", &path)
}

/// One zstd frame, padded so that the next archive begins at a multiple of four.
fn compress(archive: &[u8], level: i32) -> Result<Vec<u8>> {
    let bad = |e: std::io::Error| Error::build("initramfs", e);
    let mut encoder = zstd::Encoder::new(Vec::new(), level).map_err(bad)?;
    encoder.include_checksum(true).map_err(bad)?;
    encoder.write_all(archive).map_err(bad)?;
    let mut out = encoder.finish().map_err(bad)?;
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(out)
}
