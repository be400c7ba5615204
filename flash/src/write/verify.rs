//! Reading back what was written, from the medium.

use super::buffer::Buffer;
use super::record::{Record, UNIT};
use super::{CHUNK, Job};
use crate::error::{Error, Result};
use crate::plan::is_zero;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// After so many bad blocks no more are looked for.
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

fn compare(record: &Record, image_len: u64, job: &Job<'_>, tell: impl Fn(u64)) -> Result<()> {
    job.target.drop_cache();
    let mut bad = Bad::default();
    let mut buffer = Buffer::new(CHUNK);
    let mut all: Vec<_> = record
        .data
        .iter()
        .map(|d| (d.offset, d.len, Want::Sums(&d.sums)))
        .chain(
            record
                .zeros
                .iter()
                .map(|z| (z.start, z.end - z.start, Want::Zeros)),
        )
        .collect();
    all.sort_by_key(|(offset, ..)| *offset);
    for (offset, len, want) in all {
        let mut done = 0;
        while done < len && bad.blocks.len() < ENOUGH {
            job.check_stop()?;
            let n = (len - done).min(CHUNK as u64) as usize;
            let bytes = &mut buffer.bytes_mut()[..n];
            let want = match &want {
                Want::Sums(sums) => {
                    let first = done as usize / UNIT;
                    Want::Sums(&sums[first..first + n.div_ceil(UNIT)])
                }
                Want::Zeros => Want::Zeros,
            };
            let fail = |e| job.failed(offset + done, image_len, e);
            match job.target.read_at(offset + done, bytes) {
                Ok(()) => bad.compare(offset + done, bytes, &want),
                Err(e) if !job.target.is_there() => return Err(fail(e)),
                Err(e) if is_medium_error(&e) => {
                    one_by_one(job, offset + done, bytes, &want, &mut bad);
                }
                Err(e) => return Err(fail(e)),
            }
            done += n as u64;
            tell(n as u64);
        }
    }
    bad.result(job)
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

    fn result(self, job: &Job<'_>) -> Result<()> {
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
