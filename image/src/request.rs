//! What a build is asked for, and what it answers.

use std::{path::PathBuf, time::Duration};

use holdfast_core::{
    bytes::Block,
    cluster::ClusterId,
    keys::{PrivateKey, PublicKey},
};

use crate::{
    board::Board, cache::Cache, digest::Digest, lock::Sources, recipe::Recipe, report::SizeReport,
};

/// The programs that go in; `make node` builds them.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `holdfast-init`, a static ELF program.
    pub init: PathBuf,
    /// `holdfast-agent`, a static ELF program.
    pub agent: PathBuf,
    /// The UEFI loader, still without keys.
    pub loader: PathBuf,
}

/// The cluster an image is for.
#[derive(Clone)]
pub struct Signing {
    /// Its id.
    pub cluster: ClusterId,
    /// Public halves of its root keys, patched into the loader.
    pub roots: Vec<PublicKey>,
    /// The release list, signed by a root; must name the key below.
    pub release_list: Block,
    /// Signs the slot header and the bundle.
    pub release_key: PrivateKey,
}

/// When to lock anew by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Relock {
    /// Never: a missing file ends the build with the command that locks anew.
    #[default]
    Never,
    /// When the mirror no longer has a locked file, or there is no lock that fits.
    WhenGone,
    /// Each time.
    Always,
}

/// Files to write beside the raw image.
#[derive(Clone, Copy, Debug)]
pub struct Outputs {
    /// The raw disk image.
    pub raw: bool,
    /// The same disk for QEMU and Proxmox.
    pub qcow2: bool,
    /// The update bundle.
    pub bundle: bool,
    /// The bill of materials.
    pub sbom: bool,
}

impl Default for Outputs {
    fn default() -> Self {
        Self {
            raw: true,
            qcow2: false,
            bundle: true,
            sbom: true,
        }
    }
}

/// Everything a build needs.
#[derive(Clone)]
pub struct BuildRequest {
    /// What goes in.
    pub recipe: Recipe,
    /// For which machine.
    pub board: Board,
    /// The image's version, for people; at most 63 bytes.
    pub version: String,
    /// Grows from release to release.
    pub generation: u64,
    /// Init, agent, loader.
    pub binaries: Binaries,
    /// The cluster's keys.
    pub signing: Signing,
    /// Test equipment in place of the recipe's k3s.
    pub k3s_stand_in: Option<PathBuf>,
    /// Mirror and archive keyring.
    pub sources: Sources,
    /// Where work is kept.
    pub cache: Cache,
    /// Where the files go; made if it is not there.
    pub output_dir: PathBuf,
    /// Which files.
    pub outputs: Outputs,
    /// When to lock anew.
    pub relock: Relock,
    /// Whether to measure what takes how much; costs a second compression of the root.
    pub report: bool,
}

/// Sizes of what was built, in bytes.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Sizes {
    /// The loader.
    pub loader: u64,
    /// The unified kernel image as it lies in its slot.
    pub uki: u64,
    /// The same decoded.
    pub uki_decoded: u64,
    /// Of it, the kernel.
    pub kernel: u64,
    /// Of it, the microcode.
    pub microcode: u64,
    /// Of it, the initramfs.
    pub initramfs: u64,
    /// Root file system with its verity tree.
    pub root: u64,
    /// The k3s binary in it, before compression; 0 if none.
    pub k3s: u64,
}

/// One step of a build.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StepReport {
    /// Its name.
    pub step: String,
    /// The cache had its result.
    pub cached: bool,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// What a build made.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BuildReport {
    /// The raw disk image, if asked for.
    pub image: Option<PathBuf>,
    /// The qcow2 image, if asked for.
    pub qcow2: Option<PathBuf>,
    /// The update bundle, if asked for.
    pub bundle: Option<PathBuf>,
    /// The bill of materials, if asked for.
    pub sbom: Option<PathBuf>,
    /// Version as given.
    pub version: String,
    /// Generation as given.
    pub generation: u64,
    /// The slot's digest, as the node reports it.
    pub slot_digest: Digest,
    /// dm-verity root hash of the root.
    pub root_hash: Digest,
    /// k3s version, if any, and whether test equipment stands in for it.
    pub k3s: Option<holdfast_core::image::K3sInfo>,
    /// Sizes in bytes.
    pub sizes: Sizes,
    /// What takes how much, if asked for.
    pub parts: Option<SizeReport>,
    /// The lock was made anew.
    pub relocked: bool,
    /// Steps in the order they ended.
    pub steps: Vec<StepReport>,
    /// The whole build.
    pub took: Duration,
}
