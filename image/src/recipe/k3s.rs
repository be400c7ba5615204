//! What a recipe says of k3s: which one, its settings, what it deploys and which container images
//! come along.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use holdfast_core::image::K3S_OWN_KEYS;

use super::{
    Content, content,
    raw::{RawImage, RawK3s, RawManifest},
    setting::{Node, Setting},
};
use crate::{
    board::Arch,
    definition::{Origin, Origins, Place, Source},
    digest::Digest,
    error::{Error, Result},
    near,
};

/// Components that k3s brings and `disable` takes away (docs.k3s.io, "Managing Packaged
/// Components").
const COMPONENTS: [&str; 6] = [
    "coredns",
    "local-storage",
    "metrics-server",
    "runtimes",
    "servicelb",
    "traefik",
];
/// Names of k3s's own manifests: an add-on's name has to be its own.
const OWN_MANIFESTS: [&str; 8] = [
    "ccm",
    "coredns",
    "local-storage",
    "metrics-server",
    "rolebindings",
    "runtimes",
    "servicelb",
    "traefik",
];
/// Archives of images that k3s imports (docs.k3s.io, "Air-Gap Install").
const ARCHIVES: [&str; 8] = [
    ".tar", ".tar.lz4", ".tar.bz2", ".tbz", ".tar.gz", ".tgz", ".tar.zst", ".tzst",
];

/// A manifest for k3s to deploy.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// File name.
    pub name: String,
    /// Its text.
    pub content: Content,
}

/// Where an archive of images is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// Downloaded.
    Url(String),
    /// A file beside the recipe.
    Path(PathBuf),
}

/// An archive of container images for k3s to import.
#[derive(Clone, Debug)]
pub struct Image {
    /// File name.
    pub name: String,
    /// For this architecture only.
    pub arch: Option<Arch>,
    /// Where it is.
    pub source: ImageSource,
    /// Its digest.
    pub sha256: Digest,
    /// Its length in bytes, where the file is there already.
    pub len: Option<u64>,
    origin: Origin,
}

impl Image {
    /// That its file is not what the recipe says.
    pub(crate) fn error(&self, message: impl std::fmt::Display) -> Error {
        self.origin.error(message)
    }
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
    /// Packaged components that are not deployed.
    pub disable: BTreeSet<String>,
    /// More entries of a server's configuration.
    pub config: BTreeMap<String, Setting>,
    /// Manifests that a server deploys.
    pub manifests: Vec<Manifest>,
    /// Container images that come along.
    pub images: Vec<Image>,
    origin: Origin,
}

impl K3s {
    /// `raw` on top of what the recipe below says.
    pub(super) fn extend(
        below: Option<Self>,
        raw: RawK3s,
        span: std::ops::Range<usize>,
        source: &Source<'_>,
        origins: &mut Origins,
    ) -> Result<Self> {
        let mut k3s = match (below, raw.version) {
            (below, Some(version)) => {
                let below = below.as_ref();
                Self {
                    origin: source.origin("k3s.version", version.span()),
                    version: version.into_inner(),
                    stand_in: raw.stand_in,
                    assets: [("amd64", raw.amd64), ("arm64", raw.arm64)]
                        .into_iter()
                        .filter_map(|(arch, a)| a.map(|a| (arch.to_owned(), (a.url, a.sha256))))
                        .collect(),
                    disable: below.map(|k| k.disable.clone()).unwrap_or_default(),
                    config: below.map(|k| k.config.clone()).unwrap_or_default(),
                    manifests: below.map(|k| k.manifests.clone()).unwrap_or_default(),
                    images: below.map(|k| k.images.clone()).unwrap_or_default(),
                }
            }
            (Some(below), None) if raw.amd64.is_none() && raw.arm64.is_none() && !raw.stand_in => {
                below
            }
            (Some(_), None) => {
                let message = "k3s: a binary of its own needs `version`, too";
                return Err(source.error(Some(span), message).into());
            }
            (None, None) => {
                let message = "k3s: no recipe below this one holds a k3s: extend one that does \
                               (extends = \"k3s\"), or give `version`";
                return Err(source.error(Some(span), message).into());
            }
        };
        for name in raw.disable {
            if !COMPONENTS.contains(&name.get_ref().as_str()) {
                let message = format!(
                    "k3s.disable: {:?} is none of {}{}",
                    name.get_ref(),
                    COMPONENTS.join(", "),
                    near::hint(name.get_ref(), COMPONENTS)
                );
                return Err(source.error(Some(name.span()), message).into());
            }
            origins.note("k3s.disable", &name, source);
            k3s.disable.insert(name.into_inner());
        }
        for (key, node) in raw.config {
            let span = node.span();
            let value = config_value(&key, node.into_inner())
                .map_err(|why| source.error(Some(span.clone()), format!("k3s.config: {why}")))?;
            origins.said("k3s.config", &key, span, &yaml_value(&value), source);
            k3s.config.insert(key, value);
        }
        for manifest in raw.manifest {
            let manifest = read_manifest(manifest, source, origins)?;
            k3s.manifests.retain(|m| m.name != manifest.name);
            k3s.manifests.push(manifest);
        }
        for image in raw.image {
            let image = read_image(image, source, origins)?;
            k3s.images
                .retain(|i| i.name != image.name || i.arch != image.arch);
            k3s.images.push(image);
        }
        Ok(k3s)
    }

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

    /// Where its version stands.
    pub(crate) fn place(&self) -> Place {
        self.origin.place()
    }

    /// The entries that the recipe adds to a server's configuration, as YAML; none: no entry.
    #[must_use]
    pub fn config_yaml(&self) -> Option<String> {
        if self.config.is_empty() && self.disable.is_empty() {
            return None;
        }
        let mut yaml = String::from("# From the image's recipe.\n");
        for (key, value) in &self.config {
            let _ = writeln!(yaml, "{key}: {}", yaml_value(value));
        }
        if !self.disable.is_empty() {
            let disable = Setting::List(self.disable.iter().cloned().collect());
            let _ = writeln!(yaml, "disable: {}", yaml_value(&disable));
        }
        Some(yaml)
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

fn config_value(key: &str, node: Node) -> Result<Setting, String> {
    // `key+` appends to a list (docs.k3s.io, "Multiple Config Files").
    let bare = key.strip_suffix('+').unwrap_or(key);
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if bare.is_empty() || !bare.bytes().all(plain) {
        return Err(format!(
            "{key:?} is no key of k3s's configuration: lower case, digits and -, like \"kubelet-arg\""
        ));
    }
    if K3S_OWN_KEYS.contains(&bare) {
        return Err(format!(
            "{bare:?} is set by the agent, out of what the node is told when it joins; leave it out"
        ));
    }
    if bare == "disable" {
        return Err("\"disable\" stands by itself: [k3s] disable = [...]".into());
    }
    match node {
        Node::One(setting) => Ok(setting),
        Node::Table(_) => Err(format!(
            "{key:?} must be a text, a number, a flag or a list"
        )),
    }
}

/// A value in YAML: JSON is YAML.
fn yaml_value(value: &Setting) -> String {
    let json = match value {
        Setting::Flag(flag) => serde_json::Value::from(*flag),
        Setting::Number(number) => serde_json::Value::from(*number),
        Setting::Text(text) => serde_json::Value::from(text.as_str()),
        Setting::List(list) => serde_json::Value::from(list.clone()),
    };
    json.to_string()
}

fn read_manifest(raw: RawManifest, source: &Source<'_>, origins: &mut Origins) -> Result<Manifest> {
    let name = raw.name.get_ref();
    let stem = name.split('.').next().unwrap_or(name);
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    let typed = [".yaml", ".yml", ".json"].iter().any(|e| name.ends_with(e));
    let problem = if !typed || stem.is_empty() || stem.starts_with('-') || !name.bytes().all(plain)
    {
        Some("must be a file name of a-z, 0-9, - and ., ending in .yaml, .yml or .json".to_owned())
    } else if OWN_MANIFESTS.contains(&stem) {
        Some(format!(
            "is the name of one of k3s's own ({stem}); name it otherwise"
        ))
    } else {
        None
    };
    if let Some(problem) = problem {
        let message = format!("k3s.manifest.name: {name:?} {problem}");
        return Err(source.error(Some(raw.name.span()), message).into());
    }
    origins.note("k3s.manifest", &raw.name, source);
    Ok(Manifest {
        content: content("k3s.manifest", &raw.name, raw.content, raw.source, source)?,
        name: raw.name.into_inner(),
    })
}

fn read_image(raw: RawImage, source: &Source<'_>, origins: &mut Origins) -> Result<Image> {
    let name = raw.name.get_ref();
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._+".contains(&c);
    let typed = ARCHIVES
        .iter()
        .any(|e| name.strip_suffix(e).is_some_and(|stem| !stem.is_empty()));
    if !typed || !name.bytes().all(plain) || name.starts_with('.') {
        let message = format!(
            "k3s.image.name: {name:?} must be a file name that ends in one of {}",
            ARCHIVES.join(", ")
        );
        return Err(source.error(Some(raw.name.span()), message).into());
    }
    let from = match (raw.url, raw.source) {
        (Some(url), None) => ImageSource::Url(url),
        (None, Some(beside)) => {
            let file = source.file.with_file_name(beside.get_ref());
            if !file.is_file() {
                let message = format!(
                    "k3s.image.source: there is no {}; it is looked for from the recipe's folder",
                    file.display()
                );
                return Err(source.error(Some(beside.span()), message).into());
            }
            ImageSource::Path(file)
        }
        _ => {
            let message = format!("k3s.image {name:?} needs either `url` or `source`");
            return Err(source.error(Some(raw.name.span()), message).into());
        }
    };
    let arch = raw.arch.map_or("", Arch::debian);
    origins.said("k3s.image", name, raw.name.span(), arch, source);
    let len = match &from {
        ImageSource::Path(path) => std::fs::metadata(path).ok().map(|m| m.len()),
        ImageSource::Url(_) => None,
    };
    Ok(Image {
        len,
        origin: source.origin("k3s.image", raw.name.span()),
        name: raw.name.into_inner(),
        arch: raw.arch,
        source: from,
        sha256: raw.sha256,
    })
}
