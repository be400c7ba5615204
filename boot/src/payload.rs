//! A payload as stored: its digest, and its decoding.

use ruzstd::decoding::StreamingDecoder;
use ruzstd::io::Read as _;
use sha2::{Digest as _, Sha256};

/// Why a payload is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not what the header promises.
    #[error("payload damaged: its SHA-256 is not the header's")]
    Digest,
    /// The right bytes, but no zstd frame of the promised length: a mistake when it was built.
    #[error("payload is no zstd frame of the length in the header")]
    Zstd,
}

/// Checks the payload's bytes.
///
/// # Errors
/// [`PayloadError::Digest`].
pub fn check(stored: &[u8], sha256: &[u8; 32]) -> Result<(), PayloadError> {
    if Sha256::digest(stored).as_slice() == sha256 {
        Ok(())
    } else {
        Err(PayloadError::Digest)
    }
}

/// Decodes a zstd frame that must fill `out` exactly.
///
/// # Errors
/// [`PayloadError::Zstd`].
pub fn unzstd(stored: &[u8], out: &mut [u8]) -> Result<(), PayloadError> {
    let mut decoder = StreamingDecoder::new(stored).map_err(|_| PayloadError::Zstd)?;
    let mut done = 0;
    while done < out.len() {
        match decoder.read(&mut out[done..]) {
            Ok(0) | Err(_) => return Err(PayloadError::Zstd),
            Ok(n) => done += n,
        }
    }
    match decoder.read(&mut [0]) {
        Ok(0) => Ok(()),
        _ => Err(PayloadError::Zstd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    #[test]
    fn digest_and_frame_are_checked() {
        let text = b"immutable ".repeat(5000);
        let stored = compress_to_vec(&text[..], CompressionLevel::Fastest);
        let mut out = vec![0; text.len()];
        assert_eq!(unzstd(&stored, &mut out), Ok(()));
        assert_eq!(out, text);
        assert_eq!(
            unzstd(&stored, &mut vec![0; text.len() + 1]),
            Err(PayloadError::Zstd)
        );
        assert_eq!(
            unzstd(&stored, &mut vec![0; text.len() - 1]),
            Err(PayloadError::Zstd)
        );
        assert_eq!(
            unzstd(&stored[..stored.len() / 2], &mut out),
            Err(PayloadError::Zstd)
        );
        assert_eq!(unzstd(b"no frame", &mut out), Err(PayloadError::Zstd));
        assert_eq!(check(&text, &Sha256::digest(&text).into()), Ok(()));
        assert_eq!(
            check(&text[1..], &Sha256::digest(&text).into()),
            Err(PayloadError::Digest)
        );
    }
}
