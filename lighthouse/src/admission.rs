//! Whether a key may use a grant, and which index it gets: decisions on values.

use crate::refusal::Refusal;
use holdfast_core::api::ApiErrorKind;
use holdfast_core::cluster::MeshIndex;
use holdfast_core::documents::Policy;
use holdfast_core::grant::Grant;
use holdfast_core::keys::PublicKey;
use holdfast_core::signed::Signed;
use serde::{Deserialize, Serialize};

/// An index shown to a key that has not joined yet. It binds nobody: the join does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// For whom.
    pub key: PublicKey,
    /// Which.
    pub index: MeshIndex,
}

/// A grant as stored under `grants/ID`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrantRow {
    /// As the operator handed it over.
    pub grant: Signed<Grant>,
    /// Keys that joined with it, in order. Each is one use, for ever.
    pub used_by: Vec<PublicKey>,
    /// Oldest first. Offers take no proof that the asker holds the token, so these are hints and
    /// never more than the grant has indexes.
    #[serde(default)]
    pub offered: Vec<Reservation>,
}

/// Whether `key` may join (again) with the grant at `now` (Unix seconds).
///
/// # Errors
/// Evicted, revoked, expired, used up.
pub fn may_use(
    row: &GrantRow,
    grant: &Grant,
    key: &PublicKey,
    policy: &Policy,
    now: u64,
) -> Result<(), Refusal> {
    let refuse = |kind, text: String| Err(Refusal::new(kind, text));
    let id = &grant.id;
    if policy.evicted.contains(key) {
        return refuse(
            ApiErrorKind::Evicted,
            format!("{key} is evicted by the policy"),
        );
    }
    if policy
        .revoked
        .iter()
        .any(|r| r.id == *id && !r.except.contains(key))
    {
        return refuse(
            ApiErrorKind::GrantRevoked,
            format!("grant {id} was revoked; make a new seed"),
        );
    }
    if row.used_by.contains(key) {
        return Ok(());
    }
    if now > grant.not_after {
        let late = now - grant.not_after;
        let text = format!("grant {id} expired {late} s ago; make a new seed");
        return refuse(ApiErrorKind::GrantExpired, text);
    }
    if row.used_by.len() >= grant.uses as usize {
        let text = format!(
            "all {} uses of grant {id} are taken; make a new seed",
            grant.uses
        );
        return refuse(ApiErrorKind::GrantUsedUp, text);
    }
    Ok(())
}

/// Counts the use by `key`.
#[must_use]
pub fn used(mut row: GrantRow, key: &PublicKey) -> GrantRow {
    row.offered.retain(|o| o.key != *key);
    if !row.used_by.contains(key) {
        row.used_by.push(*key);
    }
    row
}

/// The index for `key`: the one offered before, else the lowest that is neither taken nor offered
/// to others, else the one offered longest ago.
///
/// # Errors
/// `Taken` when members have every index of the grant.
pub fn offer(
    mut row: GrantRow,
    grant: &Grant,
    key: &PublicKey,
    taken: impl Fn(MeshIndex) -> bool,
) -> Result<(MeshIndex, GrantRow), Refusal> {
    row.offered.retain(|o| !taken(o.index));
    if let Some(same) = row.offered.iter().find(|o| o.key == *key) {
        return Ok((same.index, row));
    }
    let range = grant.first.max(MeshIndex::FIRST_NODE).get()..=grant.last.get();
    let free = range
        .filter_map(|n| MeshIndex::try_from(n).ok())
        .find(|i| !taken(*i) && !row.offered.iter().any(|o| o.index == *i));
    let index = match free {
        Some(index) => index,
        None if !row.offered.is_empty() => row.offered.remove(0).index,
        None => {
            return Err(Refusal::new(
                ApiErrorKind::Taken,
                format!(
                    "members have all mesh indexes of grant {} ({} to {})",
                    grant.id,
                    grant.first.get(),
                    grant.last.get()
                ),
            ));
        }
    };
    row.offered.push(Reservation { key: *key, index });
    Ok((index, row))
}

/// Whether a grant that an operator hands over makes sense.
///
/// # Errors
/// `Malformed`, saying which field.
pub fn sensible(grant: &Grant) -> Result<(), Refusal> {
    let bad = |text: String| Err(Refusal::new(ApiErrorKind::Malformed, text));
    let (first, last) = (grant.first.get(), grant.last.get());
    if grant.first < MeshIndex::FIRST_NODE {
        let least = MeshIndex::FIRST_NODE.get();
        return bad(format!("first = {first}: nodes' indexes begin at {least}"));
    }
    if last < first {
        return bad(format!("last = {last} lies before first = {first}"));
    }
    if grant.name.is_some() && grant.names.is_some() {
        return bad("name and names: one of them".into());
    }
    if let Err(e) = grant.name_at(grant.last) {
        return bad(format!("names: {e}"));
    }
    if grant.uses == 0 {
        return bad("uses = 0: at least one".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, grant, granted, index, key, policy};
    use holdfast_core::documents::RevokedGrant;

    fn row(uses: u32, used_by: &[u8]) -> (Grant, GrantRow) {
        let grant = grant("g1", 50, uses);
        let row = GrantRow {
            grant: granted(&grant),
            used_by: used_by.iter().map(|n| key(*n).public()).collect(),
            offered: vec![],
        };
        (grant, row)
    }

    fn kind(result: Result<(), Refusal>) -> Option<ApiErrorKind> {
        result.err().map(|r| r.error.kind)
    }

    #[test]
    fn a_use_belongs_to_its_first_key_which_may_repeat_even_after_the_end() {
        let (grant, row) = row(1, &[1]);
        let k = |n| key(n).public();
        assert_eq!(kind(may_use(&row, &grant, &k(1), &policy(1), NOW)), None);
        assert_eq!(
            kind(may_use(&row, &grant, &k(1), &policy(1), NOW + 9999)),
            None
        );
        let used_up = kind(may_use(&row, &grant, &k(2), &policy(1), NOW));
        assert_eq!(used_up, Some(ApiErrorKind::GrantUsedUp));
        assert_eq!(used(row.clone(), &k(1)), row);
    }

    #[test]
    fn expired_revoked_evicted() {
        let (grant, row) = row(2, &[1]);
        let k = |n| key(n).public();
        let late = kind(may_use(&row, &grant, &k(2), &policy(1), NOW + 3601));
        assert_eq!(late, Some(ApiErrorKind::GrantExpired));
        assert_eq!(
            kind(may_use(&row, &grant, &k(2), &policy(1), NOW + 3600)),
            None
        );
        let mut p = policy(1);
        p.revoked = vec![RevokedGrant {
            id: grant.id.clone(),
            except: vec![k(1)],
        }];
        let out = kind(may_use(&row, &grant, &k(2), &p, NOW));
        assert_eq!(out, Some(ApiErrorKind::GrantRevoked));
        assert_eq!(kind(may_use(&row, &grant, &k(1), &p, NOW)), None);
        p.evicted = vec![k(1)];
        let out = kind(may_use(&row, &grant, &k(1), &p, NOW));
        assert_eq!(out, Some(ApiErrorKind::Evicted));
    }

    #[test]
    fn offers_repeat_for_the_same_key_and_strangers_cannot_use_them_up() {
        let (grant, mut row) = row(3, &[]);
        let mut seen = vec![];
        for n in [1u8, 2, 1, 3, 2] {
            let (i, next) = offer(row, &grant, &key(n).public(), |_| false).unwrap();
            row = next;
            seen.push(i.get());
        }
        assert_eq!(seen, [16, 17, 16, 18, 17]);
        // Everything is offered: the oldest offer gives way.
        let (i, row) = offer(row, &grant, &key(4).public(), |_| false).unwrap();
        assert_eq!((i, row.offered.len()), (index(16), 3));
        // What members have is never offered.
        let (i, _) = offer(row.clone(), &grant, &key(5).public(), |i| i != index(18)).unwrap();
        assert_eq!(i, index(18));
        let none = offer(row, &grant, &key(5).public(), |_| true).unwrap_err();
        assert_eq!(none.error.kind, ApiErrorKind::Taken);
    }
}
