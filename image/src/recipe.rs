//! Recipes: what goes into an image (`recipes/NAME.toml`).

mod raw;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use holdfast_core::image::ServiceSpec;
use toml::Spanned;

use self::raw::{Raw, RawService};
use crate::{
    definition::{Origin, Origins, Source},
    digest::Digest,
    error::{Error, IoContext, Result},
};

/// A file that the recipe adds to the root.
#[derive(Clone, Debug)]
pub struct File {
    /// Path in the root, without a leading slash.
    pub path: String,
    /// Its bytes.
    pub content: Content,
    /// Mode 755 instead of 644.
    pub executable: bool,
}

/// Where a recipe's file comes from.
#[derive(Clone, Debug)]
pub enum Content {
    /// The recipe itself.
    Text(String),
    /// A file beside the recipe.
    Path(PathBuf),
}

/// Which k3s goes in.
#[derive(Clone, Debug)]
pub struct K3s {
    /// Its version, e.g. `v1.36.4+k3s1`.
    pub version: String,
    /// Test equipment instead of the official binary: its path is given to the build.
    pub stand_in: bool,
    /// Debian architecture name to URL and digest.
    pub assets: BTreeMap<String, (String, Digest)>,
    origin: Origin,
}

impl K3s {
    /// URL and digest of the official binary for a Debian architecture.
    ///
    /// # Errors
    /// When the recipe pins none.
    pub fn asset(&self, arch: &str) -> Result<&(String, Digest)> {
        self.assets.get(arch).ok_or_else(|| {
            self.origin.error(format!(
                "{} for {arch} is not pinned: a [k3s.{arch}] with url and sha256 is needed",
                self.version
            ))
        })
    }

    /// That a stand-in has no place here.
    pub(crate) fn takes_no_stand_in(&self) -> Error {
        self.origin.error(
            "this is the official k3s; a stand-in needs a recipe with `stand_in = true` and what it runs on (recipe kube)",
        )
    }

    /// That a build needs its stand-in.
    pub(crate) fn needs_stand_in(&self) -> Error {
        self.origin.error(
            "this is a stand-in, test equipment: give it with --k3s stand-in=PATH (kube/build.sh builds it)",
        )
    }
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
    /// The archive's suite.
    pub suite: String,
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
    /// Files to add.
    pub files: Vec<File>,
    /// Symbolic links to add: path, target.
    pub links: Vec<(String, String)>,
    /// Empty folders to add.
    pub dirs: Vec<String>,
    /// Services for init.
    pub services: Vec<ServiceSpec>,
    /// The k3s, if any.
    pub k3s: Option<K3s>,
    pub(crate) origins: Origins,
}

impl Recipe {
    /// Reads a recipe and the ones it extends, from the same folder.
    ///
    /// # Errors
    /// When one cannot be read, or with file, line and field of what it gets wrong.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_chain(path, &mut Vec::new())
    }

    fn read_chain(path: &Path, above: &mut Vec<String>) -> Result<Self> {
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
        above.push(name.clone());
        let mut recipe = match &raw.extends {
            None => Self::empty(),
            Some(base) => {
                let file = path.with_file_name(format!("{}.toml", base.get_ref()));
                let problem = if above.contains(base.get_ref()) {
                    Some(format!(
                        "extends: {:?} extends itself in the end",
                        base.get_ref()
                    ))
                } else if !file.is_file() {
                    Some(format!("extends: there is no {}", file.display()))
                } else {
                    None
                };
                if let Some(problem) = problem {
                    return Err(source.error(Some(base.span()), problem).into());
                }
                Self::read_chain(&file, above)?
            }
        };
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
            suite: "trixie".into(),
            packages: BTreeSet::new(),
            exclude: BTreeSet::new(),
            remove: BTreeSet::new(),
            modules: Vec::new(),
            kernel_args: Vec::new(),
            trial_seconds: None,
            files: Vec::new(),
            links: Vec::new(),
            dirs: Vec::new(),
            services: Vec::new(),
            k3s: None,
            origins: Origins::default(),
        }
    }

    /// Adds what `raw` says to what the recipe below says.
    fn extend(&mut self, raw: Raw, source: &Source<'_>) -> Result<()> {
        self.description = raw.description;
        if let Some(suite) = raw.suite {
            self.suite = suite;
        }
        let package = |name: &String| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+-.".contains(&c))
        };
        if let Some(bad) = raw.packages.iter().find(|p| !package(p.get_ref())) {
            let message = format!(
                "packages: {:?} is no package name (lower case, digits, + - .; no version)",
                bad.get_ref()
            );
            return Err(source.error(Some(bad.span()), message).into());
        }
        if let Some(bad) = raw
            .kernel_args
            .iter()
            .find(|a| a.get_ref().starts_with("holdfast.") || a.get_ref().contains(' '))
        {
            let message = format!(
                "kernel_args: {:?}: one argument each, and none of holdfast.*, which the builder sets",
                bad.get_ref()
            );
            return Err(source.error(Some(bad.span()), message).into());
        }
        let trial = source.trial_seconds(raw.trial_seconds.as_ref())?;
        self.trial_seconds = trial.or(self.trial_seconds);
        for path in raw.remove {
            self.remove
                .insert(inside("remove", path.get_ref(), path.span(), source)?);
        }
        for package in &raw.packages {
            self.origins.note("packages", package, source);
        }
        for module in &raw.modules {
            self.origins.note("modules", module, source);
        }
        self.packages
            .extend(raw.packages.into_iter().map(Spanned::into_inner));
        self.exclude.extend(raw.exclude);
        self.modules
            .extend(raw.modules.into_iter().map(Spanned::into_inner));
        self.kernel_args
            .extend(raw.kernel_args.into_iter().map(Spanned::into_inner));
        for file in raw.file {
            let (path, span) = (file.path.get_ref(), file.path.span());
            let path = inside("file.path", path, span.clone(), source)?;
            let content = match (file.content, file.source) {
                (Some(text), None) => Content::Text(text),
                (None, Some(beside)) => {
                    let file = source.file.with_file_name(beside.get_ref());
                    if !file.is_file() {
                        let message = format!(
                            "file.source: there is no {}; it is looked for from the recipe's folder",
                            file.display()
                        );
                        return Err(source.error(Some(beside.span()), message).into());
                    }
                    Content::Path(file)
                }
                _ => {
                    let message = format!("file {path:?} needs either `content` or `source`");
                    return Err(source.error(Some(span), message).into());
                }
            };
            self.files.retain(|f| f.path != path);
            self.files.push(File {
                path,
                content,
                executable: file.executable,
            });
        }
        for link in raw.link {
            let path = inside("link.path", link.path.get_ref(), link.path.span(), source)?;
            self.links.retain(|(p, _)| *p != path);
            self.links.push((path, link.target));
        }
        for dir in raw.dir {
            self.dirs
                .push(inside("dir", dir.get_ref(), dir.span(), source)?);
        }
        for service in raw.service {
            self.services.push(service_spec(service, source)?);
        }
        if let Some(k3s) = raw.k3s {
            self.k3s = Some(K3s {
                origin: source.origin("k3s.version", k3s.version.span()),
                version: k3s.version.into_inner(),
                stand_in: k3s.stand_in,
                assets: [("amd64", k3s.amd64), ("arm64", k3s.arm64)]
                    .into_iter()
                    .filter_map(|(arch, asset)| asset.map(|a| (arch.to_owned(), (a.url, a.sha256))))
                    .collect(),
            });
        }
        Ok(())
    }
}

fn service_spec(service: RawService, source: &Source<'_>) -> Result<ServiceSpec> {
    let name = service.name.get_ref();
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
        let message = format!("service.name: {name:?} must be 1 to 32 of a-z, 0-9 and -");
        return Err(source.error(Some(service.name.span()), message).into());
    }
    if !service
        .exec
        .get_ref()
        .first()
        .is_some_and(|program| program.starts_with('/'))
    {
        let message =
            format!("service.exec of {name:?}: the first element is the program's absolute path");
        return Err(source.error(Some(service.exec.span()), message).into());
    }
    Ok(ServiceSpec {
        name: service.name.into_inner(),
        exec: service.exec.into_inner(),
        env: service.env,
        keep_children: service.keep_children,
        delegate: service.delegate,
    })
}

/// An absolute path of the node as a path below its root.
fn inside(
    field: &str,
    path: &str,
    span: std::ops::Range<usize>,
    source: &Source<'_>,
) -> Result<String> {
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
