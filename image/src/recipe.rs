//! Recipes: what goes into an image (`recipes/NAME.toml`).

mod extend;
mod k3s;
mod raw;
mod setting;
mod sysctl;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Path, PathBuf},
};

use holdfast_core::image::ServiceSpec;
use toml::Spanned;

use self::raw::Raw;
pub use self::{
    k3s::{Image, ImageSource, K3s, Manifest},
    setting::Setting,
};
use crate::{
    board::Arch,
    definition::{Origins, Source},
    error::{IoContext, Result},
    near,
};

/// What stands for the architecture's folder of libraries (`x86_64-linux-gnu`) in paths.
pub const TRIPLET: &str = "{triplet}";

/// A file that the recipe adds to the root.
#[derive(Clone, Debug)]
pub struct File {
    /// Path in the root, without a leading slash.
    pub path: String,
    /// Its bytes.
    pub content: Content,
    /// Mode 755 instead of 644.
    pub executable: bool,
    /// It is meant to take the place of a package's or another recipe's.
    pub replace: bool,
}

/// A symbolic link that the recipe adds to the root.
#[derive(Clone, Debug)]
pub struct Link {
    /// Path in the root, without a leading slash.
    pub path: String,
    /// Where it leads.
    pub target: String,
    /// It is meant to take the place of a package's or another recipe's.
    pub replace: bool,
}

/// Where a recipe's file comes from.
#[derive(Clone, Debug)]
pub enum Content {
    /// The recipe itself.
    Text(String),
    /// A file beside the recipe.
    Path(PathBuf),
}

impl Content {
    /// Its bytes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Path(path) => std::fs::read(path).at("read", path),
        }
    }
}

/// What only one architecture gets.
#[derive(Clone, Debug, Default)]
struct ForArch {
    packages: BTreeSet<String>,
    modules: Vec<String>,
    kernel_args: Vec<String>,
}

/// One file of a recipe and those it extends.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Layer {
    /// Its name: the file's, without `.toml`.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// One line for people.
    pub description: String,
}

/// A recipe with everything it extends, checked.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its name: the file's, without `.toml`.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// One line for people.
    pub description: String,
    /// The files it is made of; each extends the one before.
    pub layers: Vec<Layer>,
    /// The archive's suite.
    pub suite: String,
    /// Components of the archive that packages may come from.
    pub components: BTreeSet<String>,
    /// Packages to install; their dependencies come by themselves.
    pub packages: BTreeSet<String>,
    /// Dependencies that the appliance does without.
    pub exclude: BTreeSet<String>,
    /// Paths left out of the root; a trailing `*` stands for any rest.
    pub remove: BTreeSet<String>,
    /// Kernel modules loaded once the root is mounted, beside the board's.
    pub modules: Vec<String>,
    /// Kernel arguments after the board's.
    pub kernel_args: Vec<String>,
    /// How long a trial may take, if not what the board says.
    pub trial_seconds: Option<u32>,
    /// How long a committed system has to run before it counts as one that lasts, if not an hour.
    pub probation_seconds: Option<u32>,
    /// Kernel settings, by name as in sysctl.conf(5).
    pub sysctl: BTreeMap<String, String>,
    /// Files to add; those below `/var` and `/run` are made by each node.
    pub files: Vec<File>,
    /// Symbolic links to add.
    pub links: Vec<Link>,
    /// Empty folders to add.
    pub dirs: Vec<String>,
    /// Services for init.
    pub services: Vec<ServiceSpec>,
    /// The k3s, if any.
    pub k3s: Option<K3s>,
    for_arch: BTreeMap<&'static str, ForArch>,
    /// The one it is resolved for.
    arch: Option<Arch>,
    pub(crate) origins: Origins,
}

impl Recipe {
    /// Reads a recipe and the ones it extends, from the same folder.
    ///
    /// # Errors
    /// When one cannot be read, or with file, line and field of what it gets wrong.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_among(path, &[])
    }

    /// Reads a recipe and the ones it extends: from the folder of the one that names them, else
    /// from the first of `folders` that has one of that name.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn read_among(path: &Path, folders: &[PathBuf]) -> Result<Self> {
        Self::read_chain(path, folders, &mut Vec::new())
    }

    fn read_chain(path: &Path, folders: &[PathBuf], above: &mut Vec<PathBuf>) -> Result<Self> {
        let text = std::fs::read_to_string(path).at("read", path)?;
        let name = path
            .file_stem()
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default();
        let source = Source {
            file: path,
            text: &text,
        };
        let raw: Raw = source.parse()?;
        above.push(same(path));
        let mut recipe = match &raw.extends {
            None => Self::empty(),
            Some(base) => {
                let file = extended(base.get_ref(), path, folders, above)
                    .map_err(|problem| source.error(Some(base.span()), problem))?;
                Self::read_chain(&file, folders, above)?
            }
        };
        recipe.layers.push(Layer {
            name: name.clone(),
            path: path.to_owned(),
            description: raw.description.clone(),
        });
        recipe.name = name;
        recipe.path = path.to_owned();
        recipe.extend(raw, &source)?;
        Ok(recipe)
    }

    fn empty() -> Self {
        Self {
            name: String::new(),
            path: PathBuf::new(),
            description: String::new(),
            layers: Vec::new(),
            suite: "trixie".into(),
            components: BTreeSet::from(["main".to_owned()]),
            packages: BTreeSet::new(),
            exclude: BTreeSet::new(),
            remove: BTreeSet::new(),
            modules: Vec::new(),
            kernel_args: Vec::new(),
            trial_seconds: None,
            probation_seconds: None,
            sysctl: BTreeMap::new(),
            files: Vec::new(),
            links: Vec::new(),
            dirs: Vec::new(),
            services: Vec::new(),
            k3s: None,
            for_arch: BTreeMap::new(),
            arch: None,
            origins: Origins::default(),
        }
    }

    /// What an operator calls it on the command line: its name where it lies in a folder
    /// `recipes/`, else its file.
    #[must_use]
    pub fn called(&self) -> String {
        let folder = self.path.parent().and_then(Path::file_name);
        match folder.is_some_and(|f| f == "recipes") {
            true => self.name.clone(),
            false => self.path.display().to_string(),
        }
    }

    /// The packages for an architecture.
    #[must_use]
    pub fn packages_for(&self, arch: Arch) -> BTreeSet<String> {
        let own = self.for_arch.get(arch.debian());
        self.packages
            .iter()
            .chain(own.iter().flat_map(|a| &a.packages))
            .cloned()
            .collect()
    }

    /// A path as it is on the architecture that the recipe is resolved for.
    pub(crate) fn expanded(&self, path: &str) -> String {
        match self.arch {
            Some(arch) => path.replace(TRIPLET, triplet(arch)),
            None => path.to_owned(),
        }
    }

    /// The recipe as it is for one architecture: with what only that one gets, and its own paths.
    #[must_use]
    pub fn resolved(&self, arch: Arch) -> Self {
        let mut of = self.clone();
        of.packages = self.packages_for(arch);
        if let Some(own) = of.for_arch.remove(arch.debian()) {
            of.modules.extend(own.modules);
            of.kernel_args.extend(own.kernel_args);
        }
        of.for_arch.clear();
        of.arch = Some(arch);
        let expand = |text: &mut String| *text = text.replace(TRIPLET, triplet(arch));
        of.remove = self.remove.iter().map(|path| of.expanded(path)).collect();
        of.files.iter_mut().for_each(|f| expand(&mut f.path));
        of.dirs.iter_mut().for_each(expand);
        for link in &mut of.links {
            expand(&mut link.path);
            expand(&mut link.target);
        }
        for service in &mut of.services {
            service.exec.iter_mut().for_each(expand);
            service.env.iter_mut().for_each(expand);
        }
        if let Some(k3s) = &mut of.k3s {
            k3s.images.retain(|i| i.arch.is_none_or(|a| a == arch));
        }
        of
    }
}

/// Debian's name of an architecture's folder of libraries (Debian's "Multiarch tuples").
fn triplet(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64-linux-gnu",
        Arch::Arm64 => "aarch64-linux-gnu",
    }
}

/// The same file is the same path.
fn same(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The file of the recipe `name` that the one at `from` extends.
fn extended(
    name: &str,
    from: &Path,
    folders: &[PathBuf],
    above: &[PathBuf],
) -> Result<PathBuf, String> {
    if name.contains('/') || name.ends_with(".toml") {
        let file = from.with_file_name(name);
        return match file.is_file() {
            false => Err(format!("extends: there is no {}", file.display())),
            true if above.contains(&same(&file)) => {
                Err(format!("extends: {name:?} extends itself in the end"))
            }
            true => Ok(file),
        };
    }
    let beside = from.with_file_name(format!("{name}.toml"));
    let elsewhere = folders.iter().map(|f| f.join(format!("{name}.toml")));
    let there: Vec<PathBuf> = std::iter::once(beside.clone())
        .chain(elsewhere)
        .filter(|f| f.is_file())
        .collect();
    // One's own name below one's own: `edge` of this folder on top of the `edge` that is shipped.
    if let Some(found) = there.iter().find(|f| !above.contains(&same(f))) {
        return Ok(found.clone());
    }
    if !there.is_empty() {
        return Err(format!("extends: {name:?} extends itself in the end"));
    }
    let places: Vec<&Path> = from
        .parent()
        .into_iter()
        .chain(folders.iter().map(PathBuf::as_path))
        .collect();
    let known: BTreeSet<String> = places.iter().flat_map(|dir| names_in(dir)).collect();
    Err(format!(
        "extends: there is no {}{}{}",
        beside.display(),
        match folders.is_empty() {
            true => String::new(),
            false => format!(
                ", nor a {name}.toml in {}",
                folders
                    .iter()
                    .map(|f| f.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        },
        near::hint(name, known.iter().map(String::as_str)),
    ))
}

/// Names of the recipes in a folder.
fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .filter_map(|p| Some(p.file_stem()?.to_str()?.to_owned()))
        .collect()
}

/// The content of `what`, given as text or as a file beside the recipe.
fn content(
    field: &str,
    what: &Spanned<String>,
    text: Option<String>,
    beside: Option<Spanned<String>>,
    source: &Source<'_>,
) -> Result<Content> {
    match (text, beside) {
        (Some(text), None) => Ok(Content::Text(text)),
        (None, Some(beside)) => {
            let file = source.file.with_file_name(beside.get_ref());
            if !file.is_file() {
                let message = format!(
                    "{field}.source: there is no {}; it is looked for from the recipe's folder",
                    file.display()
                );
                return Err(source.error(Some(beside.span()), message).into());
            }
            Ok(Content::Path(file))
        }
        _ => {
            let message = format!(
                "{field} {:?} needs either `content` or `source`",
                what.get_ref()
            );
            Err(source.error(Some(what.span()), message).into())
        }
    }
}

/// An absolute path of the node as a path below its root.
fn inside(field: &str, path: &str, span: Range<usize>, source: &Source<'_>) -> Result<String> {
    let good = path.strip_prefix('/').filter(|rest| {
        !rest.is_empty()
            && rest
                .split('/')
                .all(|part| !part.is_empty() && part != "." && part != "..")
    });
    good.map(str::to_owned).ok_or_else(|| {
        let message = format!(
            "{field}: {path:?} must be an absolute path of the node, like \"/usr/bin/socat\""
        );
        source.error(Some(span), message).into()
    })
}

#[cfg(test)]
mod tests;
