//! The thread that reads the image: it leaves out holes, lays patches over, finds the blocks that
//! hold something, and sums them.

use super::CHUNK;
use super::buffer::Buffer;
use super::record::sums;
use crate::error::Result;
use crate::image::Source;
use crate::plan::{Plan, runs};
use crate::{BLOCK, Range};
use std::sync::mpsc::{Receiver, SyncSender};

/// Data within a chunk, with its sums.
pub(super) struct Run {
    pub(super) bytes: std::ops::Range<usize>,
    pub(super) sums: Vec<u32>,
}

/// A stretch of the image.
pub(super) struct Chunk {
    pub(super) offset: u64,
    pub(super) buffer: Buffer,
    pub(super) runs: Vec<Run>,
    /// How many of the image's bytes were gone through for it.
    pub(super) read: u64,
}

/// Sends the image's data in order. Ends when the writer does.
pub(super) fn reader(
    mut source: Box<dyn Source>,
    plan: &Plan,
    free: &Receiver<Buffer>,
    to_writer: &SyncSender<Result<Chunk>>,
) {
    if let Err(error) = read(&mut *source, plan, free, to_writer) {
        // The writer may have ended for a reason of its own.
        let _ = to_writer.send(Err(error));
    }
}

fn read(
    source: &mut dyn Source,
    plan: &Plan,
    free: &Receiver<Buffer>,
    to_writer: &SyncSender<Result<Chunk>>,
) -> Result<()> {
    let stream = plan.stream();
    let mut at = stream.start;
    let mut data = None;
    while let Some(stretch) = next(source, plan, at, &mut data)? {
        let Ok(mut buffer) = free.recv() else {
            return Ok(());
        };
        let len = (stretch.end - stretch.start) as usize;
        let bytes = &mut buffer.bytes_mut()[..len];
        source.read_at(stretch.start, bytes)?;
        for patch in &plan.patches {
            patch.apply(stretch.start, bytes);
        }
        let runs = runs(bytes)
            .into_iter()
            .map(|run| Run {
                sums: sums(&bytes[run.clone()]),
                bytes: run,
            })
            .collect();
        at = stretch.end;
        let chunk = Chunk {
            offset: stretch.start,
            buffer,
            runs,
            read: len as u64,
        };
        if to_writer.send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
    source.finish(plan.len)
}

/// The next stretch from `at` on that has to be looked at: in whole blocks, a chunk at most. `data`
/// keeps the source's answer while it holds.
fn next(
    source: &mut dyn Source,
    plan: &Plan,
    at: u64,
    data: &mut Option<Range>,
) -> Result<Option<Range>> {
    let stream = plan.stream();
    if data.as_ref().is_none_or(|d| d.end <= at) {
        *data = source.next_data(at)?;
    }
    let patch = plan.patches.iter().find(|p| p.end() > at);
    let first = [data.clone(), patch.map(|p| p.offset..p.end())]
        .into_iter()
        .flatten()
        .map(|r| r.start.max(at)..r.end)
        .min_by_key(|r| r.start);
    let Some(first) = first.filter(|r| r.start < stream.end) else {
        return Ok(None);
    };
    let start = (first.start / BLOCK * BLOCK).max(at);
    let end = first.end.min(stream.end).div_ceil(BLOCK) * BLOCK;
    Ok(Some(start..end.min(start + CHUNK as u64).min(stream.end)))
}
