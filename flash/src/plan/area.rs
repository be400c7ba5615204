//! Where an image's zeros matter.

use crate::{BLOCK, Range};
use holdfast_core::gpt::Entry;
use holdfast_core::layout::{ALIGN, PAYLOAD_OFFSET, Role};
use holdfast_core::state::COPY_OFFSET;

/// How far into `hf-seed` a seed of before, 256 KiB at most, and its reports may lie, in bytes.
const OLD_SEED: u64 = 2 << 20;

/// A partition, or a part of one, whose end may keep what lay there before. What no area covers is written exactly.
///
/// Zeros are left out when no data of the image follows them in the same area *and* they lie
/// beyond `exact`, so a file system, a verity tree or a payload is always whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Up to here (absolute) zeros are written in any case.
    pub(crate) exact: u64,
}

/// The areas of a partition of `len` bytes, relative to its start: where each begins, and how much of
/// it is written exactly. Each reaches to the next, the last to the partition's end; none: all of the
/// partition is written exactly. `holds` is how much of it something lies in, where that is known: a
/// slot's payload, a FAT volume's clusters.
///
/// - A slot's header block decides whether anything is read behind it; a payload is covered by a
///   digest, its own zeros included.
/// - The root is read only as far as its verity tree reaches, whose last block is not zero.
/// - `/var` is formatted before its first use; its first MiB is cleared so that nothing mistakes
///   it for what was there before.
/// - Of a FAT volume, free clusters are read by nobody. A seed of before was a small first file:
///   it goes, too.
/// - Of the state, each copy's header decides; the keys of a node of before stand right behind it.
/// - Records are written exactly.
fn tails(role: Role, len: u64, holds: Option<u64>) -> Vec<(u64, u64)> {
    let whole = |exact| vec![(0, exact)];
    match (role, holds) {
        (Role::Slots, _) | (Role::Esp | Role::Seed, None) => Vec::new(),
        (Role::Esp, Some(used)) => whole(used),
        (Role::Seed, Some(used)) => whole(used.max(OLD_SEED)),
        (Role::State, _) if len > COPY_OFFSET => vec![(0, ALIGN), (COPY_OFFSET, ALIGN)],
        (Role::State, _) => Vec::new(),
        (Role::Rescue | Role::Boot(_), Some(payload)) => {
            whole(PAYLOAD_OFFSET.saturating_add(payload))
        }
        (Role::Rescue | Role::Boot(_) | Role::Root(_) | Role::Var, _) => whole(ALIGN),
    }
}

/// The areas of an image of `len` bytes with these partitions, sorted.
///
/// # Errors
/// When partitions overlap the tables or each other, or do not begin and end at whole MiB.
pub(crate) fn areas(
    len: u64,
    parts: &[Entry],
    holds: impl Fn(Role) -> Option<u64>,
) -> Result<Vec<Area>, String> {
    const SECTOR: u64 = crate::image::SECTOR;
    let mut parts: Vec<_> = parts
        .iter()
        .map(|p| (p.first * SECTOR, (p.last + 1) * SECTOR, p))
        .collect();
    parts.sort_by_key(|p| p.0);
    let mut at = ALIGN;
    let mut areas = Vec::new();
    for (start, end, part) in parts {
        let name = part.name.as_str();
        if !start.is_multiple_of(ALIGN) || !end.is_multiple_of(ALIGN) {
            return Err(format!("its partition {name} does not lie at whole MiB"));
        }
        if start < at || end > len.saturating_sub(ALIGN) {
            return Err(format!(
                "its partition {name} overlaps another or a partition table"
            ));
        }
        at = end;
        let role = Role::from_name(name).filter(|r| r.type_guid() == part.type_guid);
        let tails = role.map_or_else(Vec::new, |r| tails(r, end - start, holds(r)));
        for (i, (from, exact)) in tails.iter().enumerate() {
            let next = tails.get(i + 1).map_or(end, |(next, _)| start + next);
            let from = start + from;
            areas.push(Area {
                start: from,
                end: next,
                exact: from
                    .saturating_add(*exact)
                    .div_ceil(BLOCK)
                    .saturating_mul(BLOCK)
                    .min(next),
            });
        }
    }
    if !len.is_multiple_of(ALIGN) || len < 2 * ALIGN {
        return Err(format!("its length of {len} bytes is not in whole MiB"));
    }
    Ok(areas)
}

/// Of a stretch without data, `gap`, the parts that must be zero on the medium. `followed` says
/// whether data begins where it ends.
pub(crate) fn zeros_between(areas: &[Area], gap: Range, followed: bool) -> Vec<Range> {
    let mut zeros: Vec<Range> = Vec::new();
    let mut add = |range: Range| match zeros.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if last.end == range.start => last.end = range.end,
        _ => zeros.push(range),
    };
    let mut at = gap.start;
    for area in areas {
        if area.end <= at {
            continue;
        }
        if area.start >= gap.end {
            break;
        }
        add(at..area.start.max(at));
        let from = area.start.max(at);
        let to = area.end.min(gap.end);
        let data_follows = followed && gap.end < area.end;
        add(from..if data_follows {
            to
        } else {
            area.exact.clamp(from, to)
        });
        at = to;
    }
    add(at..gap.end.max(at));
    zeros
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::guid::Guid;
    use holdfast_core::layout::{VAR_MIN, plan};
    use holdfast_core::slots::Slot;
    use holdfast_core::text::Text;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn entries() -> (Vec<Entry>, u64) {
        let (extents, len) = plan(VAR_MIN);
        let entries = extents
            .iter()
            .enumerate()
            .map(|(index, e)| Entry {
                index,
                type_guid: e.role.type_guid(),
                guid: Guid::random([index as u8; 16]),
                first: e.offset / 512,
                last: (e.offset + e.len) / 512 - 1,
                name: Text::new(e.role.name()),
            })
            .collect();
        (entries, len)
    }

    #[test]
    fn what_a_node_reads_before_it_writes_is_exact() {
        let (parts, len) = entries();
        let holds = |r| match r {
            Role::Boot(Slot::A) => Some(10 * MIB + 1),
            Role::Esp => Some(5 * MIB),
            _ => None,
        };
        let areas = areas(len, &parts, holds).unwrap();
        let zeros = zeros_between(&areas, MIB..len - MIB, false);
        let inside = |role: Role, from: u64, to: u64| {
            let e = plan(VAR_MIN)
                .0
                .into_iter()
                .find(|e| e.role == role)
                .unwrap();
            let to = if to == 0 { e.len } else { to };
            zeros
                .iter()
                .any(|z| z.start <= e.offset + from && e.offset + to <= z.end)
        };
        assert!(inside(Role::Slots, 0, 0));
        assert!(inside(Role::Seed, 0, 0), "what is on it is not known");
        for copy in [0, 16 * MIB] {
            assert!(inside(Role::State, copy, copy + MIB));
            assert!(!inside(Role::State, copy + MIB, copy + MIB + BLOCK));
        }
        for role in [
            Role::Rescue,
            Role::Boot(Slot::B),
            Role::Root(Slot::B),
            Role::Var,
        ] {
            assert!(inside(role, 0, MIB), "{role:?}");
            assert!(!inside(role, 0, 0), "{role:?}");
            assert!(!inside(role, MIB, MIB + BLOCK), "{role:?}");
        }
        assert!(inside(Role::Esp, 0, 5 * MIB) && !inside(Role::Esp, 0, 6 * MIB));
        let a = Role::Boot(Slot::A);
        assert!(inside(a, 0, 11 * MIB + BLOCK) && !inside(a, 0, 12 * MIB));
    }

    #[test]
    fn odd_tables_are_refused() {
        let (good, len) = entries();
        let none = |_| None;
        assert!(areas(len, &good, none).is_ok());
        let refused = |change: &dyn Fn(&mut Vec<Entry>)| {
            let mut parts = good.clone();
            change(&mut parts);
            areas(len, &parts, none).unwrap_err()
        };
        assert!(refused(&|p| p[3].first += 1).contains("hf-seed"));
        assert!(refused(&|p| p[3].first -= 2048).contains("overlaps"));
        assert!(refused(&|p| p[9].last += 2048).contains("overlaps"));
        assert!(refused(&|p| p[0].first = 0).contains("overlaps"));
        assert!(areas(len + 512, &good, none).is_err());
        // A partition that is not ours is written exactly.
        let mut foreign = good.clone();
        foreign[9].name = Text::new("data");
        let known = areas(len, &good, none).unwrap();
        assert_eq!(
            areas(len, &foreign, none).unwrap(),
            known[..known.len() - 1]
        );
    }

    proptest! {
        /// Block by block: whatever the rule leaves out lies in an area, beyond its exact part,
        /// with no data behind it.
        #[test]
        fn only_tails_are_left_out(
            cuts in prop::collection::btree_set(0u64..200, 2..12),
            exact in prop::collection::vec(0u64..60, 6),
            data in prop::collection::btree_set(0u64..200, 0..8),
        ) {
            let cuts: Vec<_> = cuts.into_iter().collect();
            let areas: Vec<_> = cuts
                .chunks_exact(2)
                .zip(&exact)
                .map(|(c, e)| Area { start: c[0], end: c[1], exact: (c[0] + e).min(c[1]) })
                .collect();
            let mut zeroed = [false; 200];
            let mut at = 0;
            let ends = data.iter().map(|d| (*d, true)).chain([(200, false)]);
            for (end, followed) in ends {
                for range in zeros_between(&areas, at..end, followed) {
                    prop_assert!(range.start >= at && range.end <= end);
                    range.for_each(|b| zeroed[b as usize] = true);
                }
                at = (end + 1).min(200);
            }
            for b in 0..200u64 {
                if data.contains(&b) {
                    prop_assert!(!zeroed[b as usize]);
                    continue;
                }
                let may_stay = areas.iter().any(|a| {
                    (a.start..a.end).contains(&b) && b >= a.exact && data.range(b..a.end).next().is_none()
                });
                prop_assert_eq!(!zeroed[b as usize], may_stay, "block {}", b);
            }
        }
    }
}
