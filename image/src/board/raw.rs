//! A board file as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::Arch;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) description: String,
    pub(super) arch: Arch,
    pub(super) console: Vec<String>,
    #[serde(default = "main_only")]
    pub(super) components: Vec<Spanned<String>>,
    pub(super) kernel: RawKernel,
    pub(super) boot: RawBoot,
    pub(super) modules: RawModules,
    #[serde(default)]
    pub(super) firmware: RawFirmware,
    #[serde(default)]
    pub(super) esp: Vec<RawEspFile>,
    #[serde(default)]
    pub(super) watchdog: Option<RawWatchdog>,
    #[serde(default)]
    pub(super) trial_seconds: Option<Spanned<u32>>,
}

fn main_only() -> Vec<Spanned<String>> {
    vec![Spanned::new(0..0, "main".to_owned())]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKernel {
    pub(super) package: Spanned<String>,
    #[serde(default)]
    pub(super) suite: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) args: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBoot {
    pub(super) stub_package: Spanned<String>,
    pub(super) stub: Spanned<String>,
    pub(super) loader: Spanned<String>,
    #[serde(default)]
    pub(super) encoding: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) device_trees: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) hybrid_mbr: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModules {
    pub(super) boot: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) late: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFirmware {
    #[serde(default)]
    pub(super) packages: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) initramfs: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) root: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) microcode: BTreeMap<Spanned<String>, Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEspFile {
    pub(super) path: Spanned<String>,
    #[serde(default)]
    pub(super) from: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) u_boot_env: Option<Spanned<BTreeMap<String, String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWatchdog {
    pub(super) kind: Spanned<String>,
    pub(super) seconds: Spanned<u16>,
}
