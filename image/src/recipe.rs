//! Recipes: what goes into an image (`recipes/NAME.toml`).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use holdfast_core::image::ServiceSpec;
use serde::Deserialize;
use toml::Spanned;

use crate::{
    definition::Source,
    digest::Digest,
    error::{IoContext, Result},
};

/// A recipe file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    description: String,
    #[serde(default)]
    extends: Option<Spanned<String>>,
    #[serde(default)]
    suite: Option<String>,
    #[serde(default)]
    packages: Vec<Spanned<String>>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    remove: Vec<Spanned<String>>,
    #[serde(default)]
    modules: Vec<String>,
    #[serde(default)]
    kernel_args: Vec<Spanned<String>>,
    #[serde(default)]
    trial_seconds: Option<Spanned<u32>>,
    #[serde(default)]
    file: Vec<RawFile>,
    #[serde(default)]
    link: Vec<RawLink>,
    #[serde(default)]
    dir: Vec<Spanned<String>>,
    #[serde(default)]
    service: Vec<RawService>,
    #[serde(default)]
    k3s: Option<RawK3s>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    path: Spanned<String>,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    executable: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    path: Spanned<String>,
    target: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    name: Spanned<String>,
    exec: Spanned<Vec<String>>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    keep_children: bool,
    #[serde(default)]
    delegate: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawK3s {
    version: String,
    #[serde(default)]
    stand_in: bool,
    #[serde(default)]
    amd64: Option<RawAsset>,
    #[serde(default)]
    arm64: Option<RawAsset>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAsset {
    url: String,
    sha256: Digest,
}

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
        self.packages
            .extend(raw.packages.into_iter().map(Spanned::into_inner));
        self.exclude.extend(raw.exclude);
        self.modules.extend(raw.modules);
        self.kernel_args
            .extend(raw.kernel_args.into_iter().map(Spanned::into_inner));
        for file in raw.file {
            let (path, span) = (file.path.get_ref(), file.path.span());
            let path = inside("file.path", path, span.clone(), source)?;
            let content = match (file.content, file.source) {
                (Some(text), None) => Content::Text(text),
                (None, Some(beside)) => Content::Path(source.file.with_file_name(beside)),
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
                version: k3s.version,
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
mod tests {
    use super::*;
    use std::fs;

    fn read(files: &[(&str, &str)], name: &str) -> Result<Recipe, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Recipe::read(&dir.path().join(name)).map_err(|e| {
            e.to_string()
                .replace(&format!("{}/", dir.path().display()), "")
        })
    }

    const BASE: &str = "description = \"b\"\npackages = [\"e2fsprogs\"]\nexclude = [\"x\"]\n";

    #[test]
    fn a_recipe_adds_to_the_one_it_extends() {
        let top = "description = \"t\"\nextends = \"base\"\ntrial_seconds = 90\npackages = [\"socat\"]\n\
                   [[service]]\nname = \"echo\"\nexec = [\"/usr/bin/socat\"]\n\
                   [k3s]\nversion = \"v1\"\n[k3s.amd64]\nurl = \"u\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n";
        let recipe = read(&[("base.toml", BASE), ("top.toml", top)], "top.toml").unwrap();
        assert_eq!(
            (recipe.name.as_str(), recipe.trial_seconds),
            ("top", Some(90))
        );
        assert_eq!(
            recipe.packages.iter().collect::<Vec<_>>(),
            ["e2fsprogs", "socat"]
        );
        assert!(recipe.exclude.contains("x"));
        assert_eq!(recipe.services[0].name, "echo");
        assert!(recipe.k3s.unwrap().assets.contains_key("amd64"));
    }

    #[test]
    fn errors_name_file_line_field_and_the_right_form() {
        let one = |line: &str| {
            read(
                &[("r.toml", &format!("description = \"d\"\n{line}\n"))],
                "r.toml",
            )
            .unwrap_err()
        };
        let e = one("packges = []");
        assert!(
            e.starts_with("r.toml:2: ") && e.contains("`packages`"),
            "{e}"
        );
        let e = one("packages = [\"Socat=1\"]");
        assert!(e.starts_with("r.toml:2: packages: \"Socat=1\""), "{e}");
        let e = one("extends = \"bas\"");
        assert!(
            e.starts_with("r.toml:2: extends: there is no bas.toml"),
            "{e}"
        );
        let e = one("extends = \"r\"");
        assert!(e.contains("extends itself"), "{e}");
        let e = one("trial_seconds = 5");
        assert!(
            e.starts_with("r.toml:2: trial_seconds: 5") && e.contains("between 20 and 7200"),
            "{e}"
        );
        let e = one("[[file]]\npath = \"/etc/../x\"\ncontent = \"\"");
        assert!(e.starts_with("r.toml:3: file.path"), "{e}");
        let e = one("[[service]]\nname = \"Echo\"\nexec = []");
        assert!(e.starts_with("r.toml:3: service.name"), "{e}");
        let e = one("[[service]]\nname = \"e\"\nexec = [\"socat\"]");
        assert!(e.contains("absolute path"), "{e}");
        let e = one("packages = \"socat\"");
        assert!(e.starts_with("r.toml:2: ") && e.contains("sequence"), "{e}");
    }
}
