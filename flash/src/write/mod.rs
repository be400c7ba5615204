//! Carrying a plan out: one thread reads the image, this one writes, and what was written is read
//! back from the medium before the tables make it start.

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
use crate::plan::{Plan, zeros_between};
use crate::{BLOCK, Range};
use buffer::Buffer;
use read::{Chunk, reader};
use record::Record;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// Bytes that are read and written at once: long enough for any card's erase block.
pub(crate) const CHUNK: usize = 4 << 20;
/// Buffers between reader and writer.
const BUFFERS: usize = 4;
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
    run(open(image)?, image, plan, job)
}

pub(crate) fn run(
    source: Box<dyn Source>,
    image: &Path,
    plan: &Plan,
    job: &Job<'_>,
) -> Result<Done> {
    let begun = Instant::now();
    let mut writer = Writer {
        plan,
        job,
        record: Record::default(),
        at: plan.stream().start,
        left_out: Vec::new(),
    };
    for range in &plan.clear {
        writer.zero(range.clone(), false)?;
    }
    writer.flush(0)?;
    writer.stream(source, image)?;
    writer.forget();
    writer.flush(plan.len)?;
    let mut took = begun.elapsed();
    job.progress.end("write", writer.record.written, took);

    let mut verified = None;
    if job.verify {
        verified = Some(verify::run(&writer.record, plan.len, job)?);
    }
    let begun = Instant::now();
    let tables = writer.tables()?;
    took += begun.elapsed();
    if job.verify {
        let begun = Instant::now();
        verify::quietly(&tables, plan.len, job)?;
        verified = verified.map(|v| v + begun.elapsed());
    }
    let done = Done {
        written: writer.record.written + tables.written,
        zeroed: writer.record.zeroed,
        left_out: writer.left_out.iter().map(|r| r.end - r.start).sum(),
        took,
        verified,
    };
    Ok(done)
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

struct Writer<'a> {
    plan: &'a Plan,
    job: &'a Job<'a>,
    record: Record,
    /// Everything in front of it is decided.
    at: u64,
    left_out: Vec<Range>,
}

impl Writer<'_> {
    fn flush(&self, at: u64) -> Result<()> {
        self.job
            .target
            .flush()
            .map_err(|e| self.job.failed(at, self.plan.len, e))
    }

    /// Makes a stretch zero; `keep` says whether it still is when all is done.
    fn zero(&mut self, range: Range, keep: bool) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            self.job.check_stop()?;
            let len = ZERO_STEP.min(range.end - at);
            self.job
                .target
                .zero(at, len)
                .map_err(|e| self.job.failed(at, self.plan.len, e))?;
            at += len;
        }
        if keep || range.start >= self.plan.len {
            self.record.zero(range);
        }
        Ok(())
    }

    /// What lies between the data so far and `to`.
    fn gap(&mut self, to: u64, followed: bool) -> Result<()> {
        let gap = self.at..to;
        self.at = to;
        let zeros = zeros_between(&self.plan.areas, gap.clone(), followed);
        let mut at = gap.start;
        for range in zeros {
            self.left_out.push(at..range.start);
            at = range.end;
            self.zero(range, true)?;
        }
        self.left_out.push(at..gap.end);
        Ok(())
    }

    fn stream(&mut self, source: Box<dyn Source>, image: &Path) -> Result<()> {
        let (plan, job) = (self.plan, self.job);
        job.progress
            .begin("write", source.total().or(Some(plan.len)));
        std::thread::scope(|scope| {
            let (to_writer, chunks) = sync_channel::<Result<Chunk>>(BUFFERS);
            let (give_back, free) = sync_channel::<Buffer>(BUFFERS);
            for _ in 0..BUFFERS {
                // The channel holds as many: this never waits.
                let _ = give_back.send(Buffer::new(CHUNK));
            }
            std::thread::Builder::new()
                .name("image".into())
                .spawn_scoped(scope, move || reader(source, plan, &free, &to_writer))
                .map_err(|source| Error::Io {
                    action: "read",
                    path: image.to_owned(),
                    source,
                })?;
            for chunk in chunks {
                let chunk = chunk?;
                job.check_stop()?;
                self.chunk(&chunk)?;
                job.progress.advance("write", chunk.read);
                let _ = give_back.send(chunk.buffer);
            }
            Ok::<(), Error>(())
        })?;
        self.gap(plan.stream().end, false)
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<()> {
        for run in &chunk.runs {
            let start = chunk.offset + run.bytes.start as u64;
            self.gap(start, true)?;
            let bytes = &chunk.buffer.bytes()[run.bytes.clone()];
            self.job
                .target
                .write_at(start, bytes)
                .map_err(|e| self.job.failed(start, self.plan.len, e))?;
            self.record
                .data(start, bytes.len() as u64, run.sums.clone());
            self.at = start + bytes.len() as u64;
        }
        Ok(())
    }

    /// Tells the medium what nobody needs. It need not heed that, nor does anything rely on it.
    fn forget(&mut self) {
        self.left_out.retain(|r| !r.is_empty());
        let beyond = self.plan.beyond();
        let all = self.left_out.iter().cloned().chain([beyond]);
        for range in all.filter(|r| r.end - r.start >= BLOCK) {
            if self
                .job
                .target
                .forget(range.start, range.end - range.start)
                .is_err()
            {
                return;
            }
        }
    }

    /// The backup table, then the first MiB but for its first sectors, then these in one write.
    fn tables(&mut self) -> Result<Record> {
        const LAST: usize = 4096;
        let mut record = Record::default();
        let plan = self.plan;
        let front = Buffer::of(&plan.front);
        let back = Buffer::of(&plan.back);
        let pieces = [
            (plan.back_at(), back.bytes()),
            (LAST as u64, &front.bytes()[LAST..]),
            (0, &front.bytes()[..LAST]),
        ];
        for (offset, bytes) in pieces {
            self.job.check_stop()?;
            self.job
                .target
                .write_at(offset, bytes)
                .map_err(|e| self.job.failed(plan.len, plan.len, e))?;
            self.flush(plan.len)?;
            record.data(offset, bytes.len() as u64, record::sums(bytes));
        }
        Ok(record)
    }
}
