//! Reading back what was written, from the medium.

use super::buffer::Buffer;
use super::record::{Record, UNIT};
use super::{CHUNK, Job, in_threads, locked};
use crate::error::{Error, Result};
use crate::plan::is_zero;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After so many bad blocks no more are looked for; what is being read still counts.
const ENOUGH: usize = 64;

/// Blocks that do not hold what was written to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBlocks {
    /// The first one's byte offset on the medium.
    pub offset: u64,
    /// It could not even be read.
    pub unreadable: bool,
    /// How many there are.
    pub count: usize,
    /// There may be more.
    pub more: bool,
}

impl fmt::Display for BadBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.unreadable {
            true => "cannot be read back",
            false => "does not hold what was written to it",
        };
        write!(
            f,
            "block {} (of {UNIT} bytes, at byte {}) {what}",
            self.offset / UNIT as u64,
            self.offset
        )?;
        match (self.count, self.more) {
            (0 | 1, _) => Ok(()),
            (n, false) => write!(f, "; {n} blocks are bad"),
            (n, true) => write!(f, "; {n} blocks are bad, and there may be more"),
        }
    }
}

/// What a unit has to be.
enum Want<'a> {
    Sums(&'a [u32]),
    Zeros,
}

/// Compares everything recorded; how long it took.
pub(super) fn run(record: &Record, image_len: u64, job: &Job<'_>) -> Result<Duration> {
    let begun = Instant::now();
    let total = record.written + record.zeroed;
    job.progress.begin("verify", Some(total));
    compare(record, image_len, job, |n| {
        job.progress.advance("verify", n)
    })?;
    let took = begun.elapsed();
    job.progress.end("verify", total, took);
    Ok(took)
}

/// The same without words.
pub(super) fn quietly(record: &Record, image_len: u64, job: &Job<'_>) -> Result<()> {
    compare(record, image_len, job, |_| {})
}

fn compare(
    record: &Record,
    image_len: u64,
    job: &Job<'_>,
    tell: impl Fn(u64) + Sync,
) -> Result<()> {
    job.target.drop_cache();
    let pieces = Mutex::new(pieces(record).into_iter());
    let bad = Mutex::new(Bad::default());
    let failed = AtomicBool::new(false);
    in_threads(|| {
        let mut buffer = Buffer::new(CHUNK);
        while !failed.load(Ordering::Relaxed) && locked(&bad).blocks.len() < ENOUGH {
            let Some(piece) = locked(&pieces).next() else {
                break;
            };
            let bytes = &mut buffer.bytes_mut()[..piece.len];
            let result = job
                .check_stop()
                .and_then(|()| look(job, image_len, &piece, bytes));
            match result {
                Ok(found) => locked(&bad).blocks.extend(found.blocks),
                Err(e) => {
                    failed.store(true, Ordering::Relaxed);
                    return Err(e);
                }
            }
            tell(piece.len as u64);
        }
        Ok(())
    })?;
    bad.into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .result(job)
}

/// A stretch that is read at once.
struct Piece<'a> {
    offset: u64,
    len: usize,
    want: Want<'a>,
}

/// Everything recorded, in the order of the disk.
fn pieces(record: &Record) -> Vec<Piece<'_>> {
    let mut all = Vec::new();
    for data in &record.data {
        let units = data.sums.chunks(CHUNK / UNIT);
        for (i, sums) in units.enumerate() {
            let from = (i * CHUNK) as u64;
            all.push(Piece {
                offset: data.offset + from,
                len: (data.len - from).min(CHUNK as u64) as usize,
                want: Want::Sums(sums),
            });
        }
    }
    for zeros in &record.zeros {
        let mut offset = zeros.start;
        while offset < zeros.end {
            let len = (zeros.end - offset).min(CHUNK as u64) as usize;
            all.push(Piece {
                offset,
                len,
                want: Want::Zeros,
            });
            offset += len as u64;
        }
    }
    all.sort_by_key(|p| p.offset);
    all
}

fn look(job: &Job<'_>, image_len: u64, piece: &Piece<'_>, bytes: &mut [u8]) -> Result<Bad> {
    let mut bad = Bad::default();
    match job.target.read_at(piece.offset, bytes) {
        Ok(()) => bad.compare(piece.offset, bytes, &piece.want),
        Err(e) if is_medium_error(&e) && job.target.is_there() => {
            one_by_one(job, piece.offset, bytes, &piece.want, &mut bad);
        }
        Err(e) => return Err(job.failed(piece.offset, image_len, e)),
    }
    Ok(bad)
}

fn is_medium_error(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EREMOTEIO)
    )
}

/// Which units of a stretch that cannot be read at once are the ones.
fn one_by_one(job: &Job<'_>, offset: u64, bytes: &mut [u8], want: &Want<'_>, bad: &mut Bad) {
    for (i, unit) in bytes.chunks_mut(UNIT).enumerate() {
        if bad.blocks.len() >= ENOUGH {
            return;
        }
        let at = offset + (i * UNIT) as u64;
        let want = match want {
            Want::Sums(sums) => Want::Sums(&sums[i..=i]),
            Want::Zeros => Want::Zeros,
        };
        match job.target.read_at(at, unit) {
            Ok(()) => bad.compare(at, unit, &want),
            Err(_) => bad.blocks.push((at, true)),
        }
    }
}

#[derive(Default)]
struct Bad {
    /// Offset, and whether it could not be read.
    blocks: Vec<(u64, bool)>,
}

impl Bad {
    fn compare(&mut self, offset: u64, bytes: &[u8], want: &Want<'_>) {
        for (i, unit) in bytes.chunks(UNIT).enumerate() {
            let good = match want {
                Want::Sums(sums) => sums.get(i) == Some(&crc32fast::hash(unit)),
                Want::Zeros => is_zero(unit),
            };
            if !good && self.blocks.len() < ENOUGH {
                self.blocks.push((offset + (i * UNIT) as u64, false));
            }
        }
    }

    fn result(mut self, job: &Job<'_>) -> Result<()> {
        self.blocks.sort_unstable();
        let Some((offset, unreadable)) = self.blocks.first().copied() else {
            return Ok(());
        };
        Err(Error::BadCard {
            path: job.path.to_owned(),
            bad: BadBlocks {
                offset,
                unreadable,
                count: self.blocks.len(),
                more: self.blocks.len() >= ENOUGH,
            },
        })
    }
}
