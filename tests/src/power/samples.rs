//! Which cuts to boot, of the many that were judged: what differs in kind first.

use super::cuts::Cut;
use super::judge::Verdict;
use super::replay::Judged;
use std::collections::BTreeSet;

/// A cut to boot.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Operations before the last flush.
    pub flushed: usize,
    /// What of the operations after it is there.
    pub cut: Cut,
    /// The operation that the cut interrupted.
    pub at: usize,
    /// What the judge said.
    pub verdict: Verdict,
}

/// Gathers them while cuts are judged.
#[derive(Debug, Default)]
pub struct Samples {
    kinds: BTreeSet<String>,
    odd: Vec<Sample>,
    rest: Vec<Sample>,
    seen: usize,
}

/// Of the usual ones, every so many is kept to choose from.
const EVERY: usize = 7;

impl Samples {
    /// Takes notice of a cut. Odd are the first of a kind: something else starts, or the loader says
    /// something that it did not say before.
    pub fn see(&mut self, judged: &Judged<'_>, verdict: &Verdict) {
        let sample = || Sample {
            flushed: judged.flushed,
            cut: judged.cut.clone(),
            at: judged.at,
            verdict: verdict.clone(),
        };
        let torn = judged.cut.torn.is_some();
        let kind = format!("{torn} {} {:?}", kind(verdict), verdict.said);
        if self.kinds.insert(kind) {
            self.odd.push(sample());
        } else if self.seen.is_multiple_of(EVERY) {
            self.rest.push(sample());
        }
        self.seen += 1;
    }

    /// At most `count`: odd ones first, spread over the whole, then usual ones.
    #[must_use]
    pub fn choose(&self, count: usize) -> Vec<Sample> {
        let odd = spread(&self.odd, count);
        let rest = spread(&self.rest, count - odd.len());
        odd.into_iter().chain(rest).cloned().collect()
    }
}

/// A verdict in one line.
#[must_use]
pub fn kind(verdict: &Verdict) -> String {
    format!(
        "{} {}{}{}",
        verdict.target,
        verdict.version.as_deref().unwrap_or("-"),
        if verdict.trial { ", on trial" } else { "" },
        if verdict.joined.is_some() {
            ", joined"
        } else {
            ""
        }
    )
}

fn spread<T>(all: &[T], count: usize) -> Vec<&T> {
    let count = count.min(all.len());
    (0..count).map(|n| &all[n * all.len() / count]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_over_the_whole() {
        assert_eq!(spread(&[0, 1, 2, 3, 4, 5], 3), [&0, &2, &4]);
        assert_eq!(spread(&[0, 1], 5), [&0, &1]);
        assert!(spread::<u8>(&[], 5).is_empty());
    }
}
