//! Which packages a list of packages needs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::packages::{Index, Package, Relation};
use crate::error::{Error, Result};

/// How the names of the packages begin that Debian makes a kernel of: all in `linux-image-RELEASE`
/// (6.12), or kernel, modules, and what goes with both each in its own (7.3). `linux-base` without
/// a release is not one of them.
pub const KERNEL: [&str; 4] = [
    "linux-image-",
    "linux-binary-",
    "linux-modules-",
    "linux-base-",
];

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

/// `wanted` themselves; of their dependencies only those whose name begins with one of `follow`, and
/// what these need of the same kind (a metapackage's kernel, in one package or in several).
///
/// # Errors
/// When a package is not in the index.
pub fn named<'a>(
    index: &'a Index,
    wanted: &BTreeSet<String>,
    follow: &[&str],
) -> Result<BTreeMap<String, &'a Package>> {
    let mut chosen = BTreeMap::new();
    let mut queue = VecDeque::new();
    for name in wanted {
        queue.push_back(index.get(name).ok_or_else(|| unknown(index, name))?);
    }
    while let Some(package) = queue.pop_front() {
        if chosen.insert(package.name.clone(), package).is_some() {
            continue;
        }
        let followed = package.depends.iter().flatten();
        for relation in followed.filter(|r| follow.iter().any(|f| r.name.starts_with(f))) {
            let found = index
                .satisfying(relation)
                .next()
                .ok_or_else(|| unknown(index, &relation.name))?;
            queue.push_back(found);
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
        reason: format!(
            "not in the archive for this architecture{hint}; what only one architecture has belongs in \
             the recipe's [arch.amd64] or [arch.arm64]"
        ),
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
    fn a_kernel_is_followed_from_its_metapackage_whole_or_split() {
        let index = index(&[
            ("linux-image-whole", "linux-image-6-whole", ""),
            ("linux-image-6-whole", "kmod, linux-base (>= 4.3)", ""),
            (
                "linux-image-split",
                "linux-base-split, linux-image-7-split, linux-modules-split",
                "",
            ),
            ("linux-base-split", "linux-base-7-split", ""),
            ("linux-modules-split", "linux-modules-7-split", ""),
            (
                "linux-image-7-split",
                "dracut | initramfs-tools, linux-base-7-split, linux-binary-7-split",
                "",
            ),
            ("linux-base-7-split", "", ""),
            ("linux-modules-7-split", "kmod, linux-base-7-split", ""),
            ("linux-binary-7-split", "linux-base-7-split", ""),
            ("linux-base", "", ""),
            ("kmod", "", ""),
        ]);
        let of = |wanted: &str| -> Vec<String> {
            let wanted = BTreeSet::from([wanted.to_owned()]);
            let chosen = named(&index, &wanted, &KERNEL).unwrap();
            chosen.into_keys().collect()
        };
        assert_eq!(
            of("linux-image-whole"),
            ["linux-image-6-whole", "linux-image-whole"]
        );
        assert_eq!(
            of("linux-image-split"),
            [
                "linux-base-7-split",
                "linux-base-split",
                "linux-binary-7-split",
                "linux-image-7-split",
                "linux-image-split",
                "linux-modules-7-split",
                "linux-modules-split",
            ]
        );
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
                error.contains("not in the archive for this architecture; there is socat"),
                "{error}"
            );
        }
    }
}
