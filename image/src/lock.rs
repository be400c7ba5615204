//! The lock file, `recipes/NAME.lock`: every package of an image by version and digest.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    /// The archive's date of its index, Unix seconds: the image's own date.
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
    wanted: BTreeSet<String>,
    exclude: BTreeSet<String>,
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

/// Resolves `recipe` for all of `boards` against the archive as it is now and writes the lock
/// file beside the recipe.
///
/// # Errors
/// When the archive's index cannot be had or trusted, or a package is not in it.
pub fn lock(
    recipe: &Recipe,
    boards: &[Board],
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
    let mut packages: BTreeMap<(String, String), Locked> = BTreeMap::new();
    for arch in arches(boards) {
        let release = release::fetch(&fetcher, cache, &keyring, &recipe.suite, arch.debian())?;
        date = date.max(release.date);
        for (need, of) in &needs {
            if *of == arch {
                add(&mut packages, &release.index, need)
                    .map_err(|e| blame(e.on(arch.debian()), recipe, boards))?;
            }
        }
    }
    let lock = Lock {
        version: VERSION,
        suite: recipe.suite.clone(),
        date,
        need: needs.into_iter().map(|(need, _)| need).collect(),
        packages: packages.into_values().collect(),
    };
    let text = toml::to_string(&lock).map_err(|e| Error::build("lock file", e))?;
    let head = format!("# Made by `holdfast lock {}`; do not edit.\n", recipe.name);
    write_whole(&path_of(recipe), (head + &text).as_bytes())?;
    Ok(lock)
}

fn add(
    packages: &mut BTreeMap<(String, String), Locked>,
    index: &packages::Index,
    need: &Need,
) -> Result<()> {
    let wanted: Vec<String> = need.wanted.iter().cloned().collect();
    for p in depend::closure(index, &wanted, &need.exclude)?.into_values() {
        packages
            .entry((p.name.clone(), p.arch.clone()))
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
            [(of, "kernel.package"), (of, "boot.stub_package")]
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

/// What has to be resolved: the recipe's packages for each architecture, and each board's own,
/// of which nothing but the named files is used: dependencies that only maintainer scripts
/// need are left out.
fn needs(recipe: &Recipe, boards: &[Board]) -> Vec<(Need, Arch)> {
    let roots = arches(boards).into_iter().map(|arch| {
        let need = Need {
            by: root_of(arch),
            wanted: recipe.packages_for(arch),
            exclude: recipe.exclude.clone(),
        };
        (need, arch)
    });
    let boards = boards.iter().map(|board| {
        let exclude = [
            "kmod",
            "initramfs-tools",
            "linux-initramfs-tool",
            "linux-base",
        ];
        let need = Need {
            by: board_of(&board.name),
            wanted: board.packages().into_iter().collect(),
            exclude: exclude.into_iter().map(str::to_owned).collect(),
        };
        (need, board.arch)
    });
    roots.chain(boards).collect()
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

impl Lock {
    /// Reads the lock file of `recipe` and checks that it was made for it and for `board`.
    ///
    /// # Errors
    /// When it is missing, damaged or stale, with the command that makes it anew.
    pub fn read(recipe: &Recipe, board: &Board) -> Result<Self> {
        let path = path_of(recipe);
        let bad = |reason: &str| Error::Lock {
            path: path.display().to_string(),
            reason: reason.to_owned(),
            recipe: recipe.called(),
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) => return Err(bad(&e.to_string())),
        };
        let lock: Self = Source {
            file: &path,
            text: &text,
        }
        .parse()?;
        if lock.version != VERSION {
            return Err(bad(&format!(
                "is of version {}, this builder reads {VERSION}",
                lock.version
            )));
        }
        let current = lock.suite == recipe.suite
            && needs(recipe, std::slice::from_ref(board))
                .iter()
                .all(|(need, _)| lock.need.contains(need));
        match current {
            true => Ok(lock),
            false => Err(bad(
                "the recipe or the board asks for other packages than when it was locked",
            )),
        }
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
