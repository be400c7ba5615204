//! All cuts of a record through the judge.

use super::cuts::{Cut, Shape, within};
use super::image::Image;
use super::judge::{Judge, Reads, Verdict};
use super::log::{Log, Op};
use std::collections::BTreeMap;
use std::ops::Range;

/// A cut that was judged, with what the machine had on its disk.
pub struct Judged<'a> {
    /// Operations before the last flush, all of them there.
    pub flushed: usize,
    /// What of the operations after it is there.
    pub cut: &'a Cut,
    /// The first operation that is not known to be there: what the cut interrupted.
    pub at: usize,
    /// What a node would make of it.
    pub verdict: &'a Result<Verdict, String>,
    /// The disk.
    pub image: &'a dyn Fn() -> Image,
}

/// Counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Operations of the record.
    pub ops: usize,
    /// States that a cut could have left.
    pub cuts: usize,
    /// Of these, so many differ in something that the judge reads.
    pub judged: usize,
}

/// What the judge made of a part of a window: its verdict holds for every cut that does not differ in
/// what it read.
struct Known {
    reads: Reads,
    /// The window's operations within these reads that were there.
    there: Cut,
    verdict: Result<Verdict, String>,
}

/// Judges every cut of `log` on `first`; at most `bound` odd ones for each large window.
pub fn all(
    log: &Log,
    first: Image,
    judge: &Judge,
    bound: usize,
    mut each: impl FnMut(&Judged<'_>),
) -> Count {
    let ops = log.ops();
    let mut count = Count {
        ops: ops.len(),
        ..Count::default()
    };
    let mut durable = first;
    let mut start = 0;
    // The verdict of a window's beginning is known from the window before.
    let mut begin: Option<Known> = None;
    for window in windows(ops) {
        let slice = &ops[window.clone()];
        let shapes: Vec<Shape> = slice.iter().map(shape).collect();
        let mut known: Vec<Known> = begin.take().into_iter().collect();
        let cuts = within(&shapes, bound);
        count.cuts += cuts.len();
        let make = |cut: &Cut| {
            let mut image = durable.clone();
            put(&mut image, log, slice, cut);
            image
        };
        for cut in &cuts {
            let found = known
                .iter()
                .position(|k| touching(slice, cut, &k.reads) == k.there);
            let n = found.unwrap_or_else(|| {
                count.judged += 1;
                let (verdict, reads) = judge.judge(&make(cut));
                known.push(Known {
                    there: touching(slice, cut, &reads),
                    reads,
                    verdict,
                });
                known.len() - 1
            });
            let after = cut.whole.iter().max().map_or(0, |n| n + 1);
            each(&Judged {
                flushed: start,
                cut,
                at: window.start + after,
                verdict: &known[n].verdict,
                image: &|| make(cut),
            });
        }
        let all = Cut {
            whole: (0..slice.len()).collect(),
            torn: None,
        };
        let end = known
            .into_iter()
            .find(|k| touching(slice, &all, &k.reads) == k.there);
        begin = end.map(|k| Known {
            there: Cut::default(),
            ..k
        });
        put(&mut durable, log, slice, &all);
        start = window.end;
    }
    count
}

/// The verdict on the first `until` operations without those that touch `lost`: a disk that loses
/// what it was given, which no order of writes can make good.
///
/// # Errors
/// What the judge finds wrong.
pub fn without(
    log: &Log,
    first: Image,
    judge: &Judge,
    until: usize,
    lost: &Range<u64>,
) -> Result<Verdict, String> {
    let mut image = first;
    let touches = |op: &Op| op.extent().start < lost.end && lost.start < op.extent().end;
    for op in log.ops()[..until].iter().filter(|op| !touches(op)) {
        image.apply(log, op, None);
    }
    judge.judge(&image).0
}

/// The operations between flushes.
fn windows(ops: &[Op]) -> Vec<Range<usize>> {
    let mut out = vec![];
    let mut start = 0;
    for (n, op) in ops.iter().enumerate() {
        if *op == Op::Flush {
            out.push(start..n);
            start = n + 1;
        }
    }
    out.push(start..ops.len());
    out.retain(|w| !w.is_empty());
    out
}

fn shape(op: &Op) -> Shape {
    let extent = op.extent();
    Shape {
        fua: matches!(op, Op::Write { fua: true, .. }),
        sectors: (extent.end - extent.start) / 512,
    }
}

fn put(image: &mut Image, log: &Log, slice: &[Op], cut: &Cut) {
    for n in &cut.whole {
        image.apply(log, &slice[*n], None);
    }
    if let Some((n, part)) = cut.torn {
        image.apply(log, &slice[n], Some(part));
    }
}

/// What of a cut lies within these reads.
fn touching(slice: &[Op], cut: &Cut, reads: &Reads) -> Cut {
    let touches = |n: &usize| {
        let extent = slice[*n].extent();
        let next = reads.partition_point(|r| r.end <= extent.start);
        reads.get(next).is_some_and(|r| r.start < extent.end)
    };
    Cut {
        whole: cut.whole.iter().copied().filter(touches).collect(),
        torn: cut.torn.filter(|(n, _)| touches(n)),
    }
}

/// How often each verdict came, in words.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<String, usize>);

impl Tally {
    /// One more.
    pub fn add(&mut self, words: String) {
        *self.0.entry(words).or_default() += 1;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (words, n) in &self.0 {
            writeln!(f, "{n:>8}  {words}")?;
        }
        Ok(())
    }
}
