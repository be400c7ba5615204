//! A recipe file as it is written.

use serde::Deserialize;
use toml::Spanned;

use crate::digest::Digest;

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
    pub(super) packages: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) exclude: Vec<String>,
    #[serde(default)]
    pub(super) remove: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) modules: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) kernel_args: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) trial_seconds: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) file: Vec<RawFile>,
    #[serde(default)]
    pub(super) link: Vec<RawLink>,
    #[serde(default)]
    pub(super) dir: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) service: Vec<RawService>,
    #[serde(default)]
    pub(super) k3s: Option<RawK3s>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub(super) path: Spanned<String>,
    #[serde(default)]
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) source: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) executable: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLink {
    pub(super) path: Spanned<String>,
    pub(super) target: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
pub(super) struct RawK3s {
    pub(super) version: Spanned<String>,
    #[serde(default)]
    pub(super) stand_in: bool,
    #[serde(default)]
    pub(super) amd64: Option<RawAsset>,
    #[serde(default)]
    pub(super) arm64: Option<RawAsset>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAsset {
    pub(super) url: String,
    pub(super) sha256: Digest,
}
