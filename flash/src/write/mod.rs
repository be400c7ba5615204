//! Carrying a plan out. Two threads do the same: take the next stretch of the image, then write it,
//! so that the medium always has the next write waiting, and reading costs no time of its own. What
//! was written is read back from the medium before the tables make it start.

mod buffer;
mod disk;
mod read;
mod record;
mod target;
#[cfg(test)]
mod tests;
mod verify;

pub use disk::{Disk, Place, find};
pub use target::Target;
pub use verify::BadBlocks;

use crate::error::{Error, Result};
use crate::image::{Source, open};
use crate::plan::{Plan, runs, zeros_between};
use crate::{BLOCK, Range};
use buffer::Buffer;
use read::Feed;
use record::{Data, Record, sums};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that are read and written at once: long enough for any card's erase block.
pub(crate) const CHUNK: usize = 4 << 20;
/// Threads that write, or read back: one medium needs no more to be busy.
pub(crate) const THREADS: usize = 2;
/// Zeros are asked for in steps of this, so that a stop is heeded. In bytes.
const ZERO_STEP: u64 = 32 << 20;

/// Hears how it goes.
pub trait Progress: Sync {
    /// A step begins, of so many bytes where that is known.
    fn begin(&self, step: &str, total: Option<u64>);
    /// It got further by so many bytes.
    fn advance(&self, step: &str, bytes: u64);
    /// It ended after so long; it wrote or read so many bytes.
    fn end(&self, step: &str, bytes: u64, took: Duration);
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Bytes written, without zeros that were asked for.
    pub written: u64,
    /// Bytes of zeros asked for.
    pub zeroed: u64,
    /// Bytes of the image that were left out.
    pub left_out: u64,
    /// How long writing took, until the medium had it.
    pub took: Duration,
    /// How long reading back took; none: it was not asked for.
    pub verified: Option<Duration>,
}

/// Where an image is written to, and who listens.
pub struct Job<'a> {
    /// The medium.
    pub target: &'a dyn Target,
    /// Its name in messages.
    pub path: &'a Path,
    /// Who hears how it goes.
    pub progress: &'a dyn Progress,
    /// Set by someone who wants it to end.
    pub stop: &'a AtomicBool,
    /// Whether to read back.
    pub verify: bool,
}

/// Writes an image file by a plan, reads it back, and writes its tables last.
///
/// # Errors
/// When image or medium fail, on a mismatch, or when it was stopped. The medium then starts no
/// machine: its tables are cleared first and written last.
pub fn flash(image: &Path, plan: &Plan, job: &Job<'_>) -> Result<Done> {
    run(open(image)?, plan, job)
}

pub(crate) fn run(source: Box<dyn Source>, plan: &Plan, job: &Job<'_>) -> Result<Done> {
    let begun = Instant::now();
    for range in &plan.clear {
        zero(plan, job, range)?;
    }
    flush(plan, job, 0)?;
    let mut record = Record::default();
    // What is cleared behind the image stays so; the rest makes room for the tables.
    let tail = plan.clear.iter().filter(|r| r.start >= plan.len);
    tail.for_each(|r| record.zero(r.clone()));
    for data in stream(source, plan, job)? {
        record.data(data);
    }
    let left_out = fill_gaps(plan, job, &mut record)?;
    forget(plan, job, &left_out);
    flush(plan, job, plan.len)?;
    let mut took = begun.elapsed();
    job.progress.end("write", record.written, took);

    let mut verified = None;
    if job.verify {
        verified = Some(verify::run(&record, plan.len, job)?);
    }
    let begun = Instant::now();
    let tables = tables(plan, job)?;
    took += begun.elapsed();
    if job.verify {
        let begun = Instant::now();
        verify::quietly(&tables, plan.len, job)?;
        verified = verified.map(|v| v + begun.elapsed());
    }
    Ok(Done {
        written: record.written + tables.written,
        zeroed: record.zeroed,
        left_out: left_out.iter().map(|r| r.end - r.start).sum(),
        took,
        verified,
    })
}

impl Job<'_> {
    fn check_stop(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::Stopped {
                path: self.path.to_owned(),
            }),
            false => Ok(()),
        }
    }

    /// The error of a write or read that failed at `offset`, of `len` bytes of image.
    fn failed(&self, offset: u64, len: u64, source: io::Error) -> Error {
        let gone = [libc::ENODEV, libc::ENXIO, libc::ENOMEDIUM];
        let path: PathBuf = self.path.to_owned();
        let (done, total) = (offset.min(len) >> 20, len >> 20);
        if source.raw_os_error().is_some_and(|e| gone.contains(&e)) || !self.target.is_there() {
            return Error::Gone { path, done, total };
        }
        Error::Write {
            path,
            offset,
            done,
            total,
            source,
        }
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked ends the scope with its panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does `work` in all threads; the first error ends it, and is returned.
pub(crate) fn in_threads<T: Send>(work: impl Fn() -> Result<T> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..THREADS).map(|_| scope.spawn(&work)).collect();
        let mut all = vec![work()];
        all.extend(others.into_iter().map(|t| match t.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
        all.into_iter().collect()
    })
}

fn flush(plan: &Plan, job: &Job<'_>, at: u64) -> Result<()> {
    let flushed = job.target.flush();
    flushed.map_err(|e| job.failed(at, plan.len, e))
}

fn zero(plan: &Plan, job: &Job<'_>, range: &Range) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        job.check_stop()?;
        let len = ZERO_STEP.min(range.end - at);
        let zeroed = job.target.zero(at, len);
        zeroed.map_err(|e| job.failed(at, plan.len, e))?;
        at += len;
    }
    Ok(())
}

/// Writes everything that is not zero; what that was, in the order of the disk.
fn stream(source: Box<dyn Source>, plan: &Plan, job: &Job<'_>) -> Result<Vec<Data>> {
    let feed = Feed::new(source, plan);
    job.progress.begin("write", Some(feed.total()));
    let feed = Mutex::new(feed);
    let failed = AtomicBool::new(false);
    let written = in_threads(|| {
        let result = write_stretches(&feed, &failed, plan, job);
        failed.fetch_or(result.is_err(), Ordering::Relaxed);
        result
    })?;
    locked(&feed).finish()?;
    let mut written: Vec<_> = written.into_iter().flatten().collect();
    written.sort_by_key(|d: &Data| d.offset);
    Ok(written)
}

fn write_stretches(
    feed: &Mutex<Feed<'_>>,
    failed: &AtomicBool,
    plan: &Plan,
    job: &Job<'_>,
) -> Result<Vec<Data>> {
    let mut buffer = Buffer::new(CHUNK);
    let mut written = Vec::new();
    while !failed.load(Ordering::Relaxed) {
        job.check_stop()?;
        let Some(stretch) = locked(feed).next(buffer.bytes_mut())? else {
            break;
        };
        let len = (stretch.end - stretch.start) as usize;
        let bytes = &mut buffer.bytes_mut()[..len];
        for patch in &plan.patches {
            patch.apply(stretch.start, bytes);
        }
        for run in runs(bytes) {
            let offset = stretch.start + run.start as u64;
            let bytes = &bytes[run];
            let data = Data {
                offset,
                len: bytes.len() as u64,
                sums: sums(bytes),
            };
            let put = job.target.write_at(offset, bytes);
            put.map_err(|e| job.failed(offset, plan.len, e))?;
            written.push(data);
        }
        job.progress.advance("write", len as u64);
    }
    Ok(written)
}

/// Makes zero what has to be zero between the data; what was left out.
fn fill_gaps(plan: &Plan, job: &Job<'_>, record: &mut Record) -> Result<Vec<Range>> {
    let end = plan.stream().end;
    let data: Vec<_> = record
        .data
        .iter()
        .map(|d| (d.offset, d.offset + d.len, true))
        .chain([(end, end, false)])
        .collect();
    let mut left_out = Vec::new();
    let mut at = plan.stream().start;
    for (start, end, followed) in data {
        for range in zeros_between(&plan.areas, at..start, followed) {
            left_out.push(at..range.start);
            at = range.end;
            zero(plan, job, &range)?;
            record.zero(range);
        }
        left_out.push(at..start);
        at = end;
    }
    left_out.retain(|r| !r.is_empty());
    Ok(left_out)
}

/// Tells the medium what nobody needs. It need not heed that, nor does anything rely on it.
fn forget(plan: &Plan, job: &Job<'_>, left_out: &[Range]) {
    let all = left_out.iter().cloned().chain([plan.beyond()]);
    for range in all.filter(|r| r.end >= r.start + BLOCK) {
        let told = job.target.forget(range.start, range.end - range.start);
        if told.is_err() {
            return;
        }
    }
}

/// The backup table, then the first MiB but for its first sectors, then these in one write.
fn tables(plan: &Plan, job: &Job<'_>) -> Result<Record> {
    const LAST: usize = 4096;
    let mut record = Record::default();
    let front = Buffer::of(&plan.front);
    let back = Buffer::of(&plan.back);
    let pieces = [
        (plan.back_at(), back.bytes()),
        (LAST as u64, &front.bytes()[LAST..]),
        (0, &front.bytes()[..LAST]),
    ];
    for (offset, bytes) in pieces {
        job.check_stop()?;
        if offset == 0 {
            // Everything else is on the medium before these.
            flush(plan, job, plan.len)?;
        }
        let put = job.target.write_at(offset, bytes);
        put.map_err(|e| job.failed(plan.len, plan.len, e))?;
        record.data(Data {
            offset,
            len: bytes.len() as u64,
            sums: sums(bytes),
        });
    }
    flush(plan, job, plan.len)?;
    Ok(record)
}
