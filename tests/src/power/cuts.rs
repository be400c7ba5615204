//! Which states a power cut can leave: all before the last flush is there; of what came after it, any
//! part may be, the last of it torn between sectors.

/// What matters of a write for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// On the medium when it ended: what came after it is not there without it.
    pub fua: bool,
    /// Its length in sectors; 0 cannot be torn.
    pub sectors: u64,
}

/// A part of one write, in sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part {
    /// From.
    pub from: u64,
    /// To, not included.
    pub to: u64,
}

/// What of a window had reached the medium.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Cut {
    /// Writes that are there whole, in order.
    pub whole: Vec<usize>,
    /// One more, of which only this part is there.
    pub torn: Option<(usize, Part)>,
}

impl Cut {
    fn whole(writes: impl IntoIterator<Item = usize>) -> Self {
        Self {
            whole: writes.into_iter().collect(),
            torn: None,
        }
    }

    fn possible(&self, window: &[Shape]) -> bool {
        let last = self
            .whole
            .iter()
            .chain(self.torn.as_ref().map(|t| &t.0))
            .max();
        let Some(last) = last else { return true };
        (0..*last).all(|n| !window[n].fua || self.whole.contains(&n))
    }
}

/// Windows of up to so many writes: every subset.
const ALL_SUBSETS: usize = 6;

/// The cuts within one window (the writes between two flushes): every prefix, every prefix with its
/// next write torn in two ways; every subset of a small window, of a larger one at most `bound`
/// others: one missing, one alone, the first ones missing.
#[must_use]
pub fn within(window: &[Shape], bound: usize) -> Vec<Cut> {
    let len = window.len();
    let mut cuts: Vec<Cut> = (0..=len).map(|n| Cut::whole(0..n)).collect();
    for (n, shape) in window.iter().enumerate() {
        let half = shape.sectors / 2;
        let parts = [(0, half), (half, shape.sectors)];
        for (from, to) in parts.into_iter().filter(|_| half > 0) {
            cuts.push(Cut {
                torn: Some((n, Part { from, to })),
                ..Cut::whole(0..n)
            });
        }
    }
    if len <= ALL_SUBSETS {
        let prefix = |set: u32| (set + 1).is_power_of_two();
        let subsets = (0..1u32 << len).filter(|set| !prefix(*set));
        cuts.extend(subsets.map(|set| Cut::whole((0..len).filter(|n| set >> n & 1 == 1))));
    } else {
        let step = (3 * len).div_ceil(bound.max(1)).max(1);
        for n in (0..len).step_by(step) {
            cuts.push(Cut::whole((0..len).filter(|m| *m != n)));
            cuts.push(Cut::whole([n]));
            cuts.push(Cut::whole(n..len));
        }
    }
    cuts.retain(|cut| cut.possible(window));
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const PLAIN: Shape = Shape {
        fua: false,
        sectors: 8,
    };

    #[test]
    fn a_small_window_has_every_subset_and_tears_every_write() {
        let cuts = within(&[PLAIN; 4], 100);
        let whole: HashSet<_> = cuts
            .iter()
            .filter(|c| c.torn.is_none())
            .map(|c| c.whole.clone())
            .collect();
        assert_eq!(whole.len(), 16);
        assert_eq!(cuts.iter().filter(|c| c.torn.is_some()).count(), 8);
        assert_eq!(cuts.len(), 16 + 8, "none twice");
        assert!(within(&[], 100).contains(&Cut::default()));
    }

    #[test]
    fn a_large_one_has_every_prefix_and_is_bounded() {
        let cuts = within(&[PLAIN; 1000], 90);
        for n in 0..=1000 {
            assert!(
                cuts.iter()
                    .any(|c| c.torn.is_none() && c.whole.iter().copied().eq(0..n))
            );
        }
        assert!(cuts.len() <= 1001 + 2000 + 93, "{}", cuts.len());
    }

    #[test]
    fn what_was_on_the_medium_stays() {
        let fua = Shape { fua: true, ..PLAIN };
        let cuts = within(&[PLAIN, fua, PLAIN], 100);
        assert!(
            cuts.iter().any(|c| c.whole == [1]),
            "nothing says that 0 was there"
        );
        assert!(!cuts.iter().any(|c| c.whole == [0, 2] || c.whole == [2]));
    }
}
