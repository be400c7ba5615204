//! Numbers in the names of a grant of several uses: `shelf-01`, `shelf-02`, ...

use crate::exit::Exit;
use anyhow::Result;
use holdfast_core::api::GrantStatus;
use holdfast_core::grant::NameSeries;
use holdfast_core::names::NodeName;

/// The series for `uses` nodes after those of `grants`, or from `start` where it is given.
///
/// # Errors
/// When `start` would give a name twice, or the prefix is too long.
pub fn after(
    grants: &[GrantStatus],
    prefix: &NodeName,
    start: Option<u32>,
    uses: u32,
) -> Result<NameSeries> {
    let taken = grants.iter().filter_map(|status| {
        let (grant, _) = status.grant.open_self().ok()?;
        let series = grant.names.filter(|s| s.prefix == *prefix)?;
        let places = u32::from(grant.last.get().saturating_sub(grant.first.get()));
        Some((series.start, series.start.saturating_add(places)))
    });
    let taken: Vec<(u32, u32)> = taken.collect();
    let next = taken
        .iter()
        .map(|(_, last)| last.saturating_add(1))
        .max()
        .unwrap_or(1);
    let start = start.unwrap_or(next);
    let last = start.saturating_add(uses.saturating_sub(1));
    let series = NameSeries {
        prefix: prefix.clone(),
        start,
    };
    let longest = series.name(last, last)?;
    if taken.iter().any(|(a, b)| start <= *b && *a <= last) {
        let first = series.name(start, last)?;
        return Err(Exit::Usage.error(format!(
            "a grant for names from {first} to {longest} would give some twice: the next free number of {prefix} is {next}"
        )));
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::cluster::{ClusterId, MeshIndex};
    use holdfast_core::grant::Grant;
    use holdfast_core::keys::PrivateKey;
    use holdfast_core::names::Role;
    use holdfast_core::signed::Signed;

    fn held(prefix: &str, start: u32, uses: u16) -> GrantStatus {
        let key = PrivateKey::from_bytes([1; 32]);
        let grant = Grant {
            cluster: ClusterId([1; 16]),
            id: "g1".parse().unwrap(),
            token: key.public(),
            role: Role::Bare,
            groups: vec![],
            name: None,
            names: Some(NameSeries {
                prefix: prefix.parse().unwrap(),
                start,
            }),
            first: MeshIndex::try_from(20).unwrap(),
            last: MeshIndex::try_from(19 + uses).unwrap(),
            uses: uses.into(),
            not_after: 0,
        };
        GrantStatus {
            grant: Signed::sign(&grant, &key).unwrap(),
            used_by: vec![],
            revoked: false,
        }
    }

    #[test]
    fn numbers_go_on_where_the_last_grant_ended() {
        let grants = [held("shelf", 1, 10), held("gate", 50, 2)];
        let shelf = "shelf".parse().unwrap();
        assert_eq!(after(&grants, &shelf, None, 3).unwrap().start, 11);
        assert_eq!(after(&[], &shelf, None, 3).unwrap().start, 1);
        assert_eq!(after(&grants, &shelf, Some(30), 3).unwrap().start, 30);
        let twice = after(&grants, &shelf, Some(8), 3).unwrap_err().to_string();
        assert!(
            twice.contains("shelf-08") && twice.contains("is 11"),
            "{twice}"
        );
        assert!(after(&[], &"x".repeat(61).parse().unwrap(), None, 3).is_err());
    }
}
