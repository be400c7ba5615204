//! The archive's list of packages.

use std::collections::HashMap;

use super::{
    stanza::stanzas,
    version::{self, Constraint},
};
use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// One version of one package, as the archive's index has it.
#[derive(Clone, Debug)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub arch: String,
    /// Path below the mirror.
    pub path: String,
    /// Digest of the .deb.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Name (and version) of the source package it was built from.
    pub source: String,
    /// `Pre-Depends` and `Depends`: all of these, each met by one of its alternatives.
    pub depends: Vec<Vec<Relation>>,
    /// Virtual packages, with their version where one is given.
    pub provides: Vec<(String, Option<String>)>,
}

/// A package's name and which versions of it will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Name of a real or virtual package.
    pub name: String,
    /// The constraint, if any.
    pub constraint: Option<Constraint>,
}

/// The newest version of every package of a suite.
#[derive(Default)]
pub struct Index {
    by_name: HashMap<String, Package>,
    providers: HashMap<String, Vec<String>>,
}

impl Index {
    /// Reads a `Packages` file; `what` names it in errors.
    ///
    /// # Errors
    /// When a stanza lacks its path, digest or size.
    pub fn parse(what: &str, text: &str) -> Result<Self> {
        let mut index = Self::default();
        index.extend(what, text)?;
        Ok(index)
    }

    /// Adds the packages of another `Packages` file.
    ///
    /// # Errors
    /// When it misses a field.
    pub fn extend(&mut self, what: &str, text: &str) -> Result<()> {
        for stanza in stanzas(text) {
            let name = stanza.get("Package").unwrap_or_default().to_owned();
            let bad = |field: &str| Error::Index {
                what: what.to_owned(),
                reason: format!("package {name:?} has no usable {field}"),
            };
            let field = |key: &str| stanza.get(key).ok_or_else(|| bad(key));
            let version = field("Version")?.to_owned();
            let path = field("Filename")?.to_owned();
            if path.starts_with('/') || path.split('/').any(|part| part == "..") {
                return Err(bad("Filename"));
            }
            let package = Package {
                arch: field("Architecture")?.to_owned(),
                sha256: field("SHA256")?.parse().map_err(|_| bad("SHA256"))?,
                size: field("Size")?.parse().map_err(|_| bad("Size"))?,
                source: stanza.get("Source").unwrap_or(&name).to_owned(),
                depends: ["Pre-Depends", "Depends"]
                    .into_iter()
                    .filter_map(|key| stanza.get(key))
                    .flat_map(parse_relations)
                    .collect(),
                provides: stanza
                    .get("Provides")
                    .map(parse_provides)
                    .unwrap_or_default(),
                name,
                version,
                path,
            };
            self.add(package);
        }
        Ok(())
    }

    fn add(&mut self, package: Package) {
        let newest = self
            .by_name
            .get(&package.name)
            .is_none_or(|old| version::compare(&package.version, &old.version).is_gt());
        if !newest {
            return;
        }
        for (name, _) in &package.provides {
            let providers = self.providers.entry(name.clone()).or_default();
            if !providers.contains(&package.name) {
                providers.push(package.name.clone());
                providers.sort();
            }
        }
        self.by_name.insert(package.name.clone(), package);
    }

    /// The newest version of the package with this very name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.by_name.get(name)
    }

    /// Packages that satisfy `relation`: the one of that name first, then those that provide it.
    pub fn satisfying<'a>(&'a self, relation: &'a Relation) -> impl Iterator<Item = &'a Package> {
        let allows = |version: &str| {
            relation
                .constraint
                .as_ref()
                .is_none_or(|c| c.allows(version))
        };
        let own = self.get(&relation.name).filter(move |p| allows(&p.version));
        let providers = self.providers.get(&relation.name).into_iter().flatten();
        own.into_iter()
            .chain(providers.filter_map(|p| self.get(p)).filter(|p| {
                p.provides.iter().any(|(name, version)| {
                    *name == relation.name
                        && relation
                            .constraint
                            .as_ref()
                            .is_none_or(|c| version.as_ref().is_some_and(|v| c.allows(v)))
                })
            }))
    }

    /// Names that look like `name`, for an error's sake.
    #[must_use]
    pub fn similar(&self, name: &str) -> Vec<&str> {
        let slips = crate::near::names(name, self.by_name.keys().map(String::as_str));
        if !slips.is_empty() {
            return slips;
        }
        let stem = name.split(['-', '.']).next().unwrap_or(name);
        let mut found: Vec<&str> = self
            .by_name
            .keys()
            .map(String::as_str)
            .filter(|n| n.starts_with(stem))
            .collect();
        found.sort_by_key(|n| (n.len().abs_diff(name.len()), *n));
        found.truncate(3);
        found
    }
}

/// `a (>= 1) | b, c:any [amd64]`: a list of alternatives.
fn parse_relations(text: &str) -> Vec<Vec<Relation>> {
    text.split(',')
        .map(|group| {
            group
                .split('|')
                .filter_map(parse_relation)
                .collect::<Vec<_>>()
        })
        .filter(|group| !group.is_empty())
        .collect()
}

fn parse_relation(text: &str) -> Option<Relation> {
    let text = text.split('[').next()?.trim();
    let (name, rest) = match text.split_once('(') {
        Some((name, rest)) => (name.trim(), Some(rest.trim_end_matches([')', ' ']))),
        None => (text, None),
    };
    let name = name.split(':').next().filter(|n| !n.is_empty())?.to_owned();
    let constraint = rest.map(|rest| {
        let rest = rest.trim();
        let end = rest
            .find(|c| !matches!(c, '<' | '>' | '='))
            .unwrap_or(rest.len());
        let (relation, version) = rest.split_at(end);
        Constraint {
            relation: relation.to_owned(),
            version: version.trim().to_owned(),
        }
    });
    Some(Relation { name, constraint })
}

fn parse_provides(text: &str) -> Vec<(String, Option<String>)> {
    text.split(',')
        .filter_map(parse_relation)
        .map(|r| (r.name, r.constraint.map(|c| c.version)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn relations_with_alternatives_architectures_and_versions() {
        let all =
            parse_relations("libc6 (>= 2.38), debconf (>= 0.5) | debconf-2.0, perl:any [amd64]");
        assert_eq!(all.len(), 3);
        assert_eq!(all[1][1].name, "debconf-2.0");
        assert_eq!(all[2][0].name, "perl");
        assert!(all[0][0].constraint.as_ref().unwrap().allows("2.41-12"));
    }

    #[test]
    fn the_newest_version_wins_and_paths_stay_inside() {
        let stanza = |v: &str, path: &str| {
            format!(
                "Package: a\nVersion: {v}\nArchitecture: all\nFilename: {path}\nSize: 1\nSHA256: {DIGEST}\n\n"
            )
        };
        let text =
            stanza("1.9", "pool/a9") + &stanza("1.10", "pool/a10") + &stanza("1.2", "pool/a2");
        let index = Index::parse("Packages", &text).unwrap();
        assert_eq!(index.get("a").unwrap().path, "pool/a10");
        assert!(Index::parse("Packages", &stanza("1", "pool/../../etc/passwd")).is_err());
        assert!(Index::parse("Packages", "Package: a\nVersion: 1\n").is_err());
    }
}
