//! The lock file, `recipes/NAME.lock`: every package of an image by version and digest.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    archive::{depend, fetch::Fetcher, keyring::Keyring, mirror, packages, release},
    board::{Arch, Board},
    cache::{Cache, write_whole},
    definition::Source,
    digest::Digest,
    error::{Error, Result},
    progress::Progress,
    recipe::Recipe,
};

/// Format of the file.
const VERSION: u32 = 1;

/// A lock file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// The suite that was locked.
    pub suite: String,
    /// The archive's date of that suite's index, Unix seconds: the image's own date, whatever other
    /// suite a board's kernel is from.
    pub date: u64,
    /// What was asked for: a lock made for other wishes is stale.
    need: Vec<Need>,
    /// The packages, by name.
    #[serde(rename = "package")]
    pub packages: Vec<Locked>,
}

/// One list of packages that was resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Need {
    /// `root/ARCH` or `board/NAME`.
    by: String,
    /// Another suite than the lock's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suite: Option<String>,
    /// Components of the archive; none: `main`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    components: BTreeSet<String>,
    wanted: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    exclude: BTreeSet<String>,
}

/// What kind of list a [`Need`] is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// With all dependencies: programs run from it.
    Whole,
    /// Only files are taken out of the packages.
    Files,
}

/// One locked package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// Name.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub arch: String,
    /// Source package (and version, where it differs).
    pub source: String,
    /// Path below the mirror.
    pub path: String,
    /// Digest of the .deb.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Who needs it: `root/ARCH`, `board/NAME`.
    pub by: BTreeSet<String>,
}

/// Where packages come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The mirror; else `HOLDFAST_MIRROR`, else the one of the host's apt.
    pub mirror: Option<String>,
    /// The archive's keys; else Debian's package `debian-archive-keyring`.
    pub keyring: Option<PathBuf>,
}

impl Sources {
    /// A downloader for the mirror that counts.
    ///
    /// # Errors
    /// When there is none.
    pub fn fetcher(&self, progress: Arc<dyn Progress>) -> Result<Fetcher> {
        Ok(Fetcher::new(
            mirror::discover(self.mirror.as_deref())?,
            progress,
        ))
    }
}

/// Where a recipe's lock file is.
#[must_use]
pub fn path_of(recipe: &Recipe) -> PathBuf {
    recipe.path.with_extension("lock")
}

/// What becomes of the lists of boards that are not locked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They stay in the lock file as they are.
    Keep,
    /// They go.
    Drop,
}

/// Resolves `recipe` for all of `boards` against the archive as it is now and writes the lock
/// file beside the recipe.
///
/// # Errors
/// When the archive's index cannot be had or trusted, or a package is not in it.
pub fn lock(
    recipe: &Recipe,
    boards: &[Board],
    others: Others,
    sources: &Sources,
    cache: &Cache,
    progress: Arc<dyn Progress>,
) -> Result<Lock> {
    let fetcher = sources.fetcher(progress)?;
    let keyring = Keyring::read(
        sources
            .keyring
            .as_deref()
            .unwrap_or(Path::new(crate::archive::keyring::DEFAULT_KEYRING)),
    )?;
    let needs = needs(recipe, boards);
    let mut date = 0;
    let mut packages: BTreeMap<(String, String, String), Locked> = BTreeMap::new();
    let mut releases = BTreeMap::new();
    for (need, arch, kind) in &needs {
        let suite = need.suite.as_ref().unwrap_or(&recipe.suite);
        let components = match need.components.is_empty() {
            true => BTreeSet::from(["main".to_owned()]),
            false => need.components.clone(),
        };
        let key = (suite.clone(), components.clone(), arch.debian());
        let release = match releases.entry(key) {
            Entry::Occupied(had) => had.into_mut(),
            Entry::Vacant(new) => new.insert(release::fetch(
                &fetcher,
                cache,
                &keyring,
                suite,
                &components,
                arch.debian(),
            )?),
        };
        if *suite == recipe.suite {
            date = date.max(release.date);
        }
        add(&mut packages, &release.index, need, *kind)
            .map_err(|e| blame(e.on(arch.debian()), recipe, boards))?;
    }
    let mut lock = Lock {
        version: VERSION,
        suite: recipe.suite.clone(),
        date,
        need: needs.into_iter().map(|(need, ..)| need).collect(),
        packages: packages.into_values().collect(),
    };
    if others == Others::Keep {
        // One that cannot be read holds nothing to keep.
        if let Ok(old) = Lock::load(recipe) {
            lock.keep(old);
        }
    }
    let text = toml::to_string(&lock).map_err(|e| Error::build("lock file", e))?;
    let head = format!("# Made by `holdfast lock {}`; do not edit.\n", recipe.name);
    write_whole(&path_of(recipe), (head + &text).as_bytes())?;
    Ok(lock)
}

fn add(
    packages: &mut BTreeMap<(String, String, String), Locked>,
    index: &packages::Index,
    need: &Need,
    kind: Kind,
) -> Result<()> {
    let wanted: Vec<String> = need.wanted.iter().cloned().collect();
    let chosen = match kind {
        Kind::Whole => depend::closure(index, &wanted, &need.exclude)?,
        Kind::Files => depend::named(index, &need.wanted, &depend::KERNEL)?,
    };
    for p in chosen.into_values() {
        packages
            .entry((p.name.clone(), p.arch.clone(), p.version.clone()))
            .or_insert_with(|| Locked {
                name: p.name.clone(),
                version: p.version.clone(),
                arch: p.arch.clone(),
                source: p.source.clone(),
                path: p.path.clone(),
                sha256: p.sha256,
                size: p.size,
                by: BTreeSet::new(),
            })
            .by
            .insert(need.by.clone());
    }
    Ok(())
}

/// Adds where the package that an error is about was asked for.
fn blame(error: Error, recipe: &Recipe, boards: &[Board]) -> Error {
    let Error::Package { package, .. } = &error else {
        return error;
    };
    let package = package.clone();
    boards
        .iter()
        .flat_map(|b| {
            let of = &b.origins;
            [
                (of, "kernel.package"),
                (of, "boot.stub_package"),
                (of, "firmware.packages"),
            ]
        })
        .chain([(&recipe.origins, "packages")])
        .fold(error, |e, (origins, field)| match e {
            // Blamed already.
            Error::Definition(_) => e,
            e => origins.blame(field, &package, e),
        })
}

fn arches(boards: &[Board]) -> Vec<Arch> {
    let mut arches: Vec<Arch> = boards.iter().map(|b| b.arch).collect();
    arches.sort_by_key(|a| a.debian());
    arches.dedup();
    arches
}

/// What has to be resolved: the recipe's packages for each architecture, and each board's own, of
/// which nothing but the named files is used.
fn needs(recipe: &Recipe, boards: &[Board]) -> Vec<(Need, Arch, Kind)> {
    let roots = arches(boards).into_iter().map(|arch| {
        let need = Need {
            by: root_of(arch),
            suite: None,
            components: root_components(recipe),
            wanted: recipe.packages_for(arch),
            exclude: recipe.exclude.clone(),
        };
        (need, arch, Kind::Whole)
    });
    let boards = boards.iter().flat_map(|board| {
        let need = |suite: Option<&String>, wanted: BTreeSet<String>| Need {
            by: board_of(&board.name),
            suite: suite.cloned(),
            components: board.components.clone(),
            wanted,
            exclude: BTreeSet::new(),
        };
        let own = need(None, board.packages());
        let kernel = board.kernel_suite.as_ref().map(|suite| {
            let wanted = BTreeSet::from([board.kernel_package.clone()]);
            need(Some(suite), wanted)
        });
        std::iter::once(own)
            .chain(kernel)
            .map(|need| (need, board.arch, Kind::Files))
    });
    roots.chain(boards).collect()
}

/// The components that a recipe asks for, none if it is `main` alone.
fn root_components(recipe: &Recipe) -> BTreeSet<String> {
    match recipe.components.iter().any(|c| c != "main") {
        true => recipe.components.clone(),
        false => BTreeSet::new(),
    }
}

/// Whose packages are in an image for this board.
pub(crate) fn users(arch: Arch, board: &str) -> Vec<String> {
    vec![root_of(arch), board_of(board)]
}

fn root_of(arch: Arch) -> String {
    format!("root/{}", arch.debian())
}

fn board_of(name: &str) -> String {
    format!("board/{name}")
}

fn bad(recipe: &Recipe, reason: &str) -> Error {
    Error::Lock {
        path: path_of(recipe).display().to_string(),
        reason: reason.to_owned(),
        recipe: recipe.called(),
    }
}

impl Lock {
    /// Reads the lock file of `recipe` and checks that it was made for it and for `board`.
    ///
    /// # Errors
    /// When it is missing, damaged or stale, with the command that makes it anew.
    pub fn read(recipe: &Recipe, board: &Board) -> Result<Self> {
        let lock = Self::load(recipe)?;
        let current = lock.suite == recipe.suite
            && needs(recipe, std::slice::from_ref(board))
                .iter()
                .all(|(need, ..)| lock.need.contains(need));
        match current {
            true => Ok(lock),
            false => Err(bad(
                recipe,
                "the recipe or the board asks for other packages than when it was locked",
            )),
        }
    }

    /// Reads the lock file of `recipe`, whatever it was made for.
    fn load(recipe: &Recipe) -> Result<Self> {
        let path = path_of(recipe);
        let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => bad(recipe, "the recipe is not locked yet"),
            _ => bad(recipe, &e.to_string()),
        })?;
        let lock: Self = Source {
            file: &path,
            text: &text,
        }
        .parse()?;
        match lock.version {
            VERSION => Ok(lock),
            other => Err(bad(
                recipe,
                &format!("is of version {other}, this builder reads {VERSION}"),
            )),
        }
    }

    /// Takes over the lists of `old` that this lock does not have, with their packages.
    fn keep(&mut self, old: Self) {
        if old.suite != self.suite {
            return;
        }
        let mine: BTreeSet<String> = self.need.iter().map(|n| n.by.clone()).collect();
        let kept: BTreeSet<String> = old.need.iter().map(|n| n.by.clone()).collect();
        let kept: BTreeSet<String> = kept.difference(&mine).cloned().collect();
        self.need
            .extend(old.need.into_iter().filter(|n| kept.contains(&n.by)));
        for mut package in old.packages {
            package.by.retain(|by| kept.contains(by));
            let same = |p: &&mut Locked| p.sha256 == package.sha256 && p.path == package.path;
            match self.packages.iter_mut().find(same) {
                _ if package.by.is_empty() => {}
                Some(have) => have.by.append(&mut package.by),
                None => self.packages.push(package),
            }
        }
        self.packages
            .sort_by(|a, b| (&a.name, &a.arch, &a.version).cmp(&(&b.name, &b.arch, &b.version)));
    }

    /// The packages of the root for `arch`.
    pub fn root_packages(&self, arch: Arch) -> impl Iterator<Item = &Locked> {
        let by = root_of(arch);
        self.packages.iter().filter(move |p| p.by.contains(&by))
    }

    /// The packages that a board brings (kernel, stub).
    pub fn board_packages<'a>(&'a self, board: &str) -> impl Iterator<Item = &'a Locked> + use<'a> {
        let by = board_of(board);
        self.packages.iter().filter(move |p| p.by.contains(&by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(lists: &[(&str, &[&str])]) -> Lock {
        let mut packages: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (by, names) in lists {
            for name in *names {
                packages.entry(name).or_default().insert((*by).to_owned());
            }
        }
        Lock {
            version: VERSION,
            suite: "trixie".into(),
            date: 1,
            need: lists
                .iter()
                .map(|(by, names)| Need {
                    by: (*by).to_owned(),
                    suite: None,
                    components: BTreeSet::new(),
                    wanted: names.iter().map(|n| (*n).to_owned()).collect(),
                    exclude: BTreeSet::new(),
                })
                .collect(),
            packages: packages
                .into_iter()
                .map(|(name, by)| Locked {
                    name: name.to_owned(),
                    version: "1".into(),
                    arch: "all".into(),
                    source: name.to_owned(),
                    path: format!("pool/{name}"),
                    sha256: Digest::of(name.as_bytes()),
                    size: 1,
                    by,
                })
                .collect(),
        }
    }

    #[test]
    fn lists_of_other_boards_stay_with_their_packages() {
        let old = lock(&[
            ("root/amd64", &["a"]),
            ("board/x", &["k", "old"]),
            ("board/y", &["k", "z"]),
        ]);
        let mut new = lock(&[("root/amd64", &["b"]), ("board/x", &["k"])]);
        new.keep(old);
        let names: Vec<&str> = new.packages.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["b", "k", "z"]);
        assert_eq!(new.packages[1].by.len(), 2);
        assert_eq!(new.need.len(), 3);
        let y: Vec<&str> = new.board_packages("y").map(|p| p.name.as_str()).collect();
        assert_eq!(y, ["k", "z"]);
    }
}
