//! Taking an image apart: holes are left out, patches laid over. One at a time takes the next
//! stretch; looking for the blocks that hold something, and writing, needs no turn.

use super::CHUNK;
use crate::error::Result;
use crate::image::Source;
use crate::plan::Plan;
use crate::{BLOCK, Range};

/// An image that is gone through once.
pub(super) struct Feed<'a> {
    source: Box<dyn Source>,
    plan: &'a Plan,
    /// Everything in front of it was handed out.
    at: u64,
    /// The source's last answer, while it holds.
    data: Option<Range>,
}

impl<'a> Feed<'a> {
    pub(super) fn new(source: Box<dyn Source>, plan: &'a Plan) -> Self {
        Self {
            source,
            plan,
            at: plan.stream().start,
            data: None,
        }
    }

    /// How many bytes there are to go through, as far as known beforehand.
    pub(super) fn total(&self) -> u64 {
        self.source.total().unwrap_or(self.plan.len)
    }

    /// Reads the next stretch that may hold data into the beginning of `buffer`.
    pub(super) fn next(&mut self, buffer: &mut [u8]) -> Result<Option<Range>> {
        let Some(stretch) = self.next_stretch()? else {
            return Ok(None);
        };
        let bytes = &mut buffer[..(stretch.end - stretch.start) as usize];
        self.source.read_at(stretch.start, bytes)?;
        self.at = stretch.end;
        Ok(Some(stretch))
    }

    /// All was handed out: makes sure that all was there.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.source.finish(self.plan.len)
    }

    /// In whole blocks, a chunk at most.
    fn next_stretch(&mut self) -> Result<Option<Range>> {
        let (at, end) = (self.at, self.plan.stream().end);
        if self.data.as_ref().is_none_or(|d| d.end <= at) {
            self.data = self.source.next_data(at)?;
        }
        let patch = self.plan.patches.iter().find(|p| p.end() > at);
        let first = [self.data.clone(), patch.map(|p| p.offset..p.end())]
            .into_iter()
            .flatten()
            .map(|r| r.start.max(at)..r.end)
            .min_by_key(|r| r.start);
        let Some(first) = first.filter(|r| r.start < end) else {
            return Ok(None);
        };
        let start = (first.start / BLOCK * BLOCK).max(at);
        let to = first.end.min(end).div_ceil(BLOCK) * BLOCK;
        Ok(Some(start..to.min(start + CHUNK as u64).min(end)))
    }
}
