//! The verified root: device, mount, entrance.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::MsFlags;

use crate::cmdline::RootSpec;
use crate::disk::Partition;
use crate::mounts;
use crate::sys::dm::{Control, Target};
use crate::verity;

/// Name of the verity device.
const NAME: &str = "hf-root";
const SYSROOT: &str = "/sysroot";

/// Opens the verity device over `partition`, mounts it read-only and makes it `/`.
pub fn enter(spec: &RootSpec, partition: &Partition) -> Result<()> {
    let metadata = std::fs::metadata(&partition.node)
        .with_context(|| format!("find {}", partition.node.display()))?;
    let device = metadata.rdev();
    let number = format!(
        "{}:{}",
        nix::sys::stat::major(device),
        nix::sys::stat::minor(device)
    );
    let parameters = verity::table(spec, &number);
    let target = Target {
        kind: "verity",
        sectors: verity::sectors(spec),
        parameters: &parameters,
    };
    let control = Control::open().context("open device-mapper")?;
    let node = control
        .create_readonly(NAME, &target)
        .context("make the verity device")?;
    std::fs::create_dir_all(SYSROOT).with_context(|| format!("make {SYSROOT}"))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mounts::mount_at(&node, Path::new(SYSROOT), &spec.fs, flags, "")?;
    mounts::enter_root(Path::new(SYSROOT))
}

/// Whether every block of the root that was read did verify.
pub fn is_sound() -> Result<bool> {
    let status = Control::open()
        .and_then(|control| control.status(NAME))
        .context("ask device-mapper about the root")?;
    Ok(!verity::is_corrupt(&status))
}
