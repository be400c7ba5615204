//! The update bundle: signed manifest, UKI, root (format: `holdfast_core::manifest`).

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use holdfast_core::{
    keys::{Digest, PrivateKey},
    manifest::{self, Encoding, Manifest, Payload},
    signed::Signed,
};

use crate::error::{Error, IoContext, Result};

/// Payloads begin at multiples of this, in bytes.
const ALIGN: u64 = 4096;

/// A payload before its place in the bundle is known.
pub(crate) struct Content {
    pub(crate) len: u64,
    pub(crate) digest: Digest,
}

/// The boot and root payloads, stored as they go to the partitions: kernel, initramfs and root
/// are compressed already.
pub(crate) fn payloads(boot: &Content, root: &Content) -> (Payload, Payload) {
    let payload = |offset, content: &Content| Payload {
        offset,
        len: content.len,
        digest: content.digest,
        encoding: Encoding::Raw,
        decoded_len: content.len,
        decoded_digest: content.digest,
    };
    (
        payload(0, boot),
        payload(boot.len.next_multiple_of(ALIGN), root),
    )
}

/// Writes the bundle.
pub(crate) fn write(
    manifest: &Manifest,
    key: &PrivateKey,
    uki: &[u8],
    root: &Path,
    to: &Path,
) -> Result<()> {
    let bad = |e: String| Error::build("update bundle", e);
    let signed = Signed::sign(manifest, key).map_err(|e| bad(e.to_string()))?;
    let front = manifest::write(&signed).map_err(|e| bad(e.to_string()))?;
    let file = File::create(to).at("create", to)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&front).at("write", to)?;
    out.write_all(uki).at("write", to)?;
    let gap = manifest.root.offset - uki.len() as u64;
    out.write_all(&vec![0; gap as usize]).at("write", to)?;
    let mut from = File::open(root).at("open", root)?;
    std::io::copy(&mut from, &mut out).at("write", to)?;
    out.flush().at("write", to)
}
