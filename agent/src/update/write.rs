//! A bundle's bytes, in order, into the free slot: hashed as they come, decoded, written. The
//! header is not touched here.

use super::check::{Piece, Plan};
use crate::disk;
use holdfast_core::keys::Digest;
use holdfast_core::manifest::Encoding;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Write};

/// Why writing stopped. The slot stays empty in the record.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Bytes that are not those that were signed.
    #[error(
        "the {what} payload's digest is {found}; the manifest says {wanted}: the bundle is damaged"
    )]
    Digest {
        /// Which payload.
        what: &'static str,
        /// What came.
        found: Digest,
        /// What was signed.
        wanted: Digest,
    },
    /// The whole is not what the operator named.
    #[error("the bundle's digest is {found}; the operator named {wanted}")]
    Whole {
        /// What came.
        found: Digest,
        /// What was asked for.
        wanted: Digest,
    },
    /// More or fewer bytes than announced.
    #[error(
        "the {what} payload does not decode to the length in the manifest: its digest cannot hold"
    )]
    Length {
        /// Which payload.
        what: &'static str,
    },
    /// The frame does not decode.
    #[error("the {what} payload does not decode ({source}): its digest cannot hold")]
    Decode {
        /// Which payload.
        what: &'static str,
        /// zstd's words.
        source: io::Error,
    },
    /// The disk.
    #[error("the slot cannot be written: {0}")]
    Disk(io::Error),
    /// What was written is not what is read.
    #[error("the {what} partition does not keep what is written to it")]
    ReadBack {
        /// Which payload.
        what: &'static str,
    },
}

/// A partition from an offset on, with a limit, hashing.
struct Sink {
    file: File,
    base: u64,
    written: u64,
    limit: u64,
    hash: Sha256,
    failed: Option<io::Error>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        if self.written + bytes.len() as u64 > self.limit {
            return Err(io::Error::other("more bytes than the manifest says"));
        }
        if let Err(e) = self.file.write_all_at(bytes, self.base + self.written) {
            let told = io::Error::new(e.kind(), e.to_string());
            self.failed = Some(e);
            return Err(told);
        }
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Decoder {
    Raw(Sink),
    Zstd(zstd::stream::write::Decoder<'static, Sink>),
}

impl Decoder {
    fn new(sink: Sink, encoding: Encoding) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Raw => Self::Raw(sink),
            Encoding::Zstd => Self::Zstd(zstd::stream::write::Decoder::new(sink)?),
        })
    }

    fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Raw(sink) => sink.write_all(bytes),
            Self::Zstd(decoder) => decoder.write_all(bytes),
        }
    }

    fn sink(&mut self) -> &mut Sink {
        match self {
            Self::Raw(sink) => sink,
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }

    fn finish(self) -> io::Result<Sink> {
        match self {
            Self::Raw(sink) => Ok(sink),
            Self::Zstd(mut decoder) => {
                decoder.flush()?;
                Ok(decoder.into_inner())
            }
        }
    }
}

/// Where payloads go.
pub struct Target {
    /// The partition.
    pub file: File,
    /// First byte of the payload in it.
    pub base: u64,
}

struct Job {
    piece: Piece,
    base: u64,
    file: File,
    stored: Sha256,
    decoder: Option<Decoder>,
}

/// Takes a bundle's bytes.
pub struct Writer {
    at: u64,
    len: u64,
    whole: Sha256,
    jobs: Vec<Job>,
}

fn what(piece: &Piece) -> &'static str {
    if piece.boot { "boot" } else { "root" }
}

fn digest(hash: Sha256) -> Digest {
    Digest(hash.finalize().into())
}

impl Writer {
    /// For a checked bundle of `len` bytes.
    ///
    /// # Errors
    /// [`WriteError::Disk`].
    pub fn new(plan: &Plan, len: u64, root: &Target, boot: &Target) -> Result<Self, WriteError> {
        let mut jobs = vec![];
        for piece in &plan.pieces {
            let target = if piece.boot { boot } else { root };
            let file = target.file.try_clone().map_err(WriteError::Disk)?;
            let sink = Sink {
                file: target.file.try_clone().map_err(WriteError::Disk)?,
                base: target.base,
                written: 0,
                limit: piece.payload.decoded_len,
                hash: Sha256::new(),
                failed: None,
            };
            let decoder = Decoder::new(sink, piece.payload.encoding).map_err(WriteError::Disk)?;
            jobs.push(Job {
                piece: piece.clone(),
                base: target.base,
                file,
                stored: Sha256::new(),
                decoder: Some(decoder),
            });
        }
        Ok(Self {
            at: 0,
            len,
            whole: Sha256::new(),
            jobs,
        })
    }

    /// Bytes taken so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Takes the next bytes; gives the payloads that were finished by them.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<&'static str>, WriteError> {
        let left = usize::try_from(self.len - self.at).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(left)];
        self.whole.update(bytes);
        let (from, to) = (self.at, self.at + bytes.len() as u64);
        let mut done = vec![];
        for job in &mut self.jobs {
            let range = job.piece.range.clone();
            let (a, b) = (range.start.max(from), range.end.min(to));
            if a < b {
                job.feed(&bytes[(a - from) as usize..(b - from) as usize])?;
                if b == range.end {
                    job.finish()?;
                    done.push(what(&job.piece));
                }
            }
        }
        self.at = to;
        Ok(done)
    }

    /// The whole has come: is it what the operator named, and does the disk have it?
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn finish(self, wanted: Digest) -> Result<(), WriteError> {
        let found = digest(self.whole);
        if found != wanted {
            return Err(WriteError::Whole { found, wanted });
        }
        self.jobs.iter().try_for_each(Job::read_back)
    }
}

impl Job {
    fn decode_error(&mut self, source: io::Error) -> WriteError {
        let disk = self.decoder.as_mut().and_then(|d| d.sink().failed.take());
        match disk {
            Some(e) => WriteError::Disk(e),
            None => WriteError::Decode {
                what: what(&self.piece),
                source,
            },
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.stored.update(bytes);
        let Some(decoder) = &mut self.decoder else {
            return Ok(());
        };
        decoder.feed(bytes).map_err(|e| self.decode_error(e))
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        let what = what(&self.piece);
        let payload = &self.piece.payload;
        let found = digest(std::mem::take(&mut self.stored));
        if found != payload.digest {
            return Err(WriteError::Digest {
                what,
                found,
                wanted: payload.digest,
            });
        }
        let Some(decoder) = self.decoder.take() else {
            return Ok(());
        };
        let sink = decoder
            .finish()
            .map_err(|source| WriteError::Decode { what, source })?;
        if sink.written != payload.decoded_len {
            return Err(WriteError::Length { what });
        }
        let found = digest(sink.hash);
        if found != payload.decoded_digest {
            return Err(WriteError::Digest {
                what,
                found,
                wanted: payload.decoded_digest,
            });
        }
        self.file.sync_data().map_err(WriteError::Disk)
    }

    /// Reads what the disk has, past the page cache.
    fn read_back(&self) -> Result<(), WriteError> {
        let payload = &self.piece.payload;
        disk::forget_cached(&self.file);
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < payload.decoded_len {
            let n = (payload.decoded_len - at).min(1 << 20) as usize;
            let bytes = disk::read_at(&self.file, self.base + at, n).map_err(WriteError::Disk)?;
            if bytes.len() != n {
                break;
            }
            hash.update(&bytes);
            at += n as u64;
        }
        if digest(hash) == payload.decoded_digest {
            Ok(())
        } else {
            Err(WriteError::ReadBack {
                what: what(&self.piece),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::check::tests::{bundle, here, image, releases};
    use crate::update::check::{Plan, check};
    use proptest::prelude::*;

    fn target(base: u64) -> Target {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 22).unwrap();
        Target { file, base }
    }

    fn plan(bundle: &[u8]) -> Plan {
        let (list, image) = (releases(), image());
        check(bundle, bundle.len() as u64, &here(&list, &image)).unwrap()
    }

    fn content(n: usize, seed: u8) -> Vec<u8> {
        (0..n)
            .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) ^ (i >> 8) as u8)
            .collect()
    }

    #[test]
    fn both_payloads_arrive_whatever_the_chunks() {
        let (root_data, boot_data) = (content(300_000, 1), content(70_000, 2));
        let b = bundle(&root_data, &boot_data, 1, |_| {});
        for chunk in [1000, 4096, 65_536, b.len()] {
            let (root, boot) = (target(0), target(1 << 20));
            let mut w = Writer::new(&plan(&b), b.len() as u64, &root, &boot).unwrap();
            let done: Vec<_> = b.chunks(chunk).flat_map(|c| w.feed(c).unwrap()).collect();
            assert_eq!(done, ["root", "boot"]);
            w.finish(Digest::of(&b)).unwrap();
            assert_eq!(
                disk::read_at(&root.file, 0, root_data.len()).unwrap(),
                root_data
            );
            assert_eq!(
                disk::read_at(&boot.file, 1 << 20, boot_data.len()).unwrap(),
                boot_data
            );
        }
    }

    #[test]
    fn another_sound_bundle_is_not_the_one_that_was_asked_for() {
        let b = bundle(b"root", b"boot", 1, |_| {});
        let mut w = Writer::new(&plan(&b), b.len() as u64, &target(0), &target(0)).unwrap();
        w.feed(&b).unwrap();
        assert!(matches!(
            w.finish(Digest([0; 32])),
            Err(WriteError::Whole { .. })
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_flipped_bit_in_the_data_is_always_seen(at in 0usize..400_000, bit in 0u8..8) {
            let b = bundle(&content(100_000, 3), &content(9_000, 4), 1, |_| {});
            let plan = plan(&b);
            let start = plan.pieces[0].range.start as usize;
            let at = start + at % (b.len() - start);
            let mut bad = b.clone();
            bad[at] ^= 1 << bit;
            let mut w = Writer::new(&plan, bad.len() as u64, &target(0), &target(0)).unwrap();
            let fed = bad.chunks(5000).try_for_each(|c| w.feed(c).map(drop));
            let outcome = fed.and_then(|()| w.finish(Digest::of(&b)));
            prop_assert!(outcome.is_err_and(|e| e.to_string().contains("digest")));
        }
    }
}
