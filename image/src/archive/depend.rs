//! Which packages a list of packages needs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::packages::{Index, Package, Relation};
use crate::error::{Error, Result};

/// The closure of `wanted` over `Pre-Depends` and `Depends`, without the packages in `exclude`:
/// what an appliance without shell or package manager has no use for.
///
/// # Errors
/// When a package or one of its dependencies is not in the index.
pub fn closure<'a>(
    index: &'a Index,
    wanted: &[String],
    exclude: &BTreeSet<String>,
) -> Result<BTreeMap<String, &'a Package>> {
    let mut chosen: BTreeMap<String, &Package> = BTreeMap::new();
    let mut queue = VecDeque::new();
    for name in wanted {
        let package = index.get(name).ok_or_else(|| unknown(index, name))?;
        if chosen.insert(name.clone(), package).is_none() {
            queue.push_back(package);
        }
    }
    while let Some(package) = queue.pop_front() {
        for alternatives in &package.depends {
            if alternatives.iter().any(|r| met(index, r, &chosen, exclude)) {
                continue;
            }
            let found = alternatives
                .iter()
                .find_map(|r| index.satisfying(r).find(|p| !exclude.contains(&p.name)))
                .ok_or_else(|| Error::Package {
                    package: package.name.clone(),
                    reason: format!(
                        "needs {}, which the archive does not have; name it under `exclude` if it is not wanted",
                        alternatives.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(" or ")
                    ),
                })?;
            chosen.insert(found.name.clone(), found);
            queue.push_back(found);
        }
    }
    Ok(chosen)
}

/// `wanted` themselves; of their dependencies only those whose name begins with `follow` (a
/// metapackage's kernel).
///
/// # Errors
/// When a package is not in the index.
pub fn named<'a>(
    index: &'a Index,
    wanted: &BTreeSet<String>,
    follow: &str,
) -> Result<BTreeMap<String, &'a Package>> {
    let mut chosen = BTreeMap::new();
    for name in wanted {
        let package = index.get(name).ok_or_else(|| unknown(index, name))?;
        chosen.insert(name.clone(), package);
        let followed = package.depends.iter().flatten();
        for relation in followed.filter(|r| r.name.starts_with(follow)) {
            let found = index
                .satisfying(relation)
                .next()
                .ok_or_else(|| unknown(index, &relation.name))?;
            chosen.insert(found.name.clone(), found);
        }
    }
    Ok(chosen)
}

/// Excluded, or already chosen under its own or a provided name.
fn met(
    index: &Index,
    relation: &Relation,
    chosen: &BTreeMap<String, &Package>,
    exclude: &BTreeSet<String>,
) -> bool {
    exclude.contains(&relation.name)
        || index
            .satisfying(relation)
            .any(|p| chosen.contains_key(&p.name))
}

fn unknown(index: &Index, name: &str) -> Error {
    let similar = index.similar(name);
    let hint = match similar.is_empty() {
        true => String::new(),
        false => format!("; there is {}", similar.join(", ")),
    };
    Error::Package {
        package: name.to_owned(),
        reason: format!("not in the archive{hint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(entries: &[(&str, &str, &str)]) -> Index {
        let text: String = entries
            .iter()
            .map(|(name, depends, provides)| {
                format!(
                    "Package: {name}\nVersion: 1\nArchitecture: all\nFilename: p/{name}\nSize: 1\n\
                     SHA256: {}\nDepends: {depends}\nProvides: {provides}\n\n",
                    "0".repeat(64)
                )
            })
            .collect();
        Index::parse("Packages", &text).unwrap()
    }

    fn names(index: &Index, wanted: &[&str], exclude: &[&str]) -> Result<Vec<String>> {
        let wanted: Vec<String> = wanted.iter().map(|s| (*s).to_owned()).collect();
        let exclude = exclude.iter().map(|s| (*s).to_owned()).collect();
        closure(index, &wanted, &exclude).map(|c| c.into_keys().collect())
    }

    #[test]
    fn loops_alternatives_and_virtual_packages() {
        let index = index(&[
            ("a", "b, mta | x", ""),
            ("b", "a", ""),
            ("exim", "", "mta"),
            ("postfix", "", "mta"),
            ("x", "", ""),
        ]);
        assert_eq!(names(&index, &["a"], &[]).unwrap(), ["a", "b", "exim"]);
        assert_eq!(names(&index, &["a", "x"], &[]).unwrap(), ["a", "b", "x"]);
        assert_eq!(
            names(&index, &["a", "postfix"], &[]).unwrap(),
            ["a", "b", "postfix"]
        );
        assert_eq!(names(&index, &["a"], &["mta", "b"]).unwrap(), ["a"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let index = index(&[("a", "gone (>= 2)", ""), ("socat", "", "")]);
        assert!(
            names(&index, &["a"], &[])
                .unwrap_err()
                .to_string()
                .contains("gone")
        );
        for slip in ["soca", "scoat", "socatt"] {
            let error = names(&index, &[slip], &[]).unwrap_err().to_string();
            assert!(
                error.contains("not in the archive; there is socat"),
                "{error}"
            );
        }
    }
}
