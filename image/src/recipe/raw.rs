//! A recipe file as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::setting::Node;
use crate::{board::Arch, digest::Digest};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) description: String,
    #[serde(default)]
    pub(super) extends: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) suite: Option<String>,
    #[serde(default)]
    pub(super) components: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) packages: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) exclude: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) remove: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) modules: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) kernel_args: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) trial_seconds: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) probation_seconds: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) sysctl: BTreeMap<String, Spanned<Node>>,
    #[serde(default)]
    pub(super) arch: RawArches,
    #[serde(default)]
    pub(super) file: Vec<RawFile>,
    #[serde(default)]
    pub(super) link: Vec<RawLink>,
    #[serde(default)]
    pub(super) dir: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) service: Vec<RawService>,
    #[serde(default)]
    pub(super) k3s: Option<Spanned<RawK3s>>,
}

/// What only one architecture gets.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: [arch.amd64], [arch.arm64]")]
pub(super) struct RawArches {
    #[serde(default)]
    pub(super) amd64: RawArch,
    #[serde(default)]
    pub(super) arm64: RawArch,
}

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table of packages, modules and kernel_args"
)]
pub(super) struct RawArch {
    #[serde(default)]
    pub(super) packages: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) modules: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) kernel_args: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table: [[file]] with path, and content or source"
)]
pub(super) struct RawFile {
    pub(super) path: Spanned<String>,
    #[serde(default)]
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) source: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) executable: bool,
    #[serde(default)]
    pub(super) replace: bool,
}

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table: [[link]] with path and target"
)]
pub(super) struct RawLink {
    pub(super) path: Spanned<String>,
    pub(super) target: String,
    #[serde(default)]
    pub(super) replace: bool,
}

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table: [[service]] with name and exec"
)]
pub(super) struct RawService {
    pub(super) name: Spanned<String>,
    pub(super) exec: Spanned<Vec<String>>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    #[serde(default)]
    pub(super) keep_children: bool,
    #[serde(default)]
    pub(super) delegate: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: [k3s]")]
pub(super) struct RawK3s {
    #[serde(default)]
    pub(super) version: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) stand_in: bool,
    #[serde(default)]
    pub(super) amd64: Option<RawAsset>,
    #[serde(default)]
    pub(super) arm64: Option<RawAsset>,
    #[serde(default)]
    pub(super) disable: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) config: BTreeMap<String, Spanned<Node>>,
    #[serde(default)]
    pub(super) manifest: Vec<RawManifest>,
    #[serde(default)]
    pub(super) image: Vec<RawImage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of url and sha256")]
pub(super) struct RawAsset {
    pub(super) url: String,
    pub(super) sha256: Digest,
}

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table: [[k3s.manifest]] with name, and content or source"
)]
pub(super) struct RawManifest {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) source: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table: [[k3s.image]] with name, sha256, and url or source"
)]
pub(super) struct RawImage {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) arch: Option<Arch>,
    #[serde(default)]
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) source: Option<Spanned<String>>,
    pub(super) sha256: Digest,
}
