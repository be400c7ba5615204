//! `/var`: formatted once, mounted, mended, or replaced by memory (decision 14).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::MsFlags;

use crate::mounts;
use crate::sys::block;
use crate::tool::Tools;

/// What is known before anything is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// `hf-state` says that it was formatted; `None`: `hf-state` cannot be read.
    pub formatted: Option<bool>,
    /// The running slot is on trial.
    pub trial: bool,
    /// The root with its tools is there.
    pub tools: bool,
    /// The superblock asks for a check.
    pub errors: bool,
}

/// One thing to try. A plan is a list of them: the first that ends in a mount wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make the file system, mount it, and only then remember that it was made.
    Format,
    /// Mount it.
    Mount,
    /// `e2fsck -p`, then mount.
    Preen,
    /// `e2fsck -y`, then mount.
    Repair,
    /// Give the trial up.
    FailTrial,
    /// Run with `/var` in memory.
    Memory,
}

/// What to try, in order.
pub fn plan(known: Known) -> Vec<Step> {
    use Step::{FailTrial, Format, Memory, Mount, Preen, Repair};
    match known {
        Known {
            formatted: Some(false),
            tools: true,
            ..
        } => vec![Format, Memory],
        // Without tools nothing can be made or mended, but a sound one mounts.
        Known {
            tools: false,
            trial: false,
            ..
        } => vec![Mount, Memory],
        // On trial nothing is repaired: the last good system has to find what it left.
        Known { trial: true, .. } => vec![Mount, FailTrial],
        Known { errors: true, .. } => vec![Preen, Repair, Memory],
        Known { .. } => vec![Mount, Preen, Repair, Memory],
    }
}

/// `s_magic`, `s_state` and sizes of an ext4 superblock (Linux `Documentation/filesystems/ext4`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// The kernel met errors, or the last check did not finish.
    pub errors: bool,
    /// Length in blocks.
    pub blocks: u64,
    /// Bytes in a block.
    pub block_size: u64,
}

const SUPERBLOCK_AT: u64 = 1024;
const STATE_ERRORS: u16 = 2;
const INCOMPAT_64BIT: u32 = 0x80;

/// Reads the 1024 bytes at offset 1024; `None` if they are no ext superblock.
pub fn superblock(bytes: &[u8; 1024]) -> Option<Superblock> {
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | (u32::from(u16_at(at + 2)) << 16);
    let log = u32_at(0x18);
    if u16_at(0x38) != 0xef53 || log > 6 {
        return None;
    }
    let high = if u32_at(0x60) & INCOMPAT_64BIT != 0 {
        u64::from(u32_at(0x150)) << 32
    } else {
        0
    };
    Some(Superblock {
        errors: u16_at(0x3a) & STATE_ERRORS != 0,
        blocks: high | u64::from(u32_at(4)),
        block_size: 1024 << log,
    })
}

/// Reads the superblock of a device.
pub fn read_superblock(device: &Path) -> Option<Superblock> {
    let mut bytes = [0; 1024];
    File::open(device)
        .ok()?
        .read_exact_at(&mut bytes, SUPERBLOCK_AT)
        .ok()?;
    superblock(&bytes)
}

/// How `/var` came out.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Mounted; `true`: freshly formatted.
    Disk(bool),
    /// In memory.
    Memory,
    /// The trial has to be given up.
    FailTrial,
}

/// Executes a plan on `device`; `notes` collects what an operator should know.
pub fn execute(
    plan: &[Step],
    device: &Path,
    tools: &mut Tools<'_>,
    notes: &mut Vec<String>,
) -> Result<Outcome> {
    for step in plan {
        let done = match step {
            Step::Format => format(device, tools)
                .and_then(|()| mount(device))
                .map(|()| Outcome::Disk(true)),
            Step::Mount => mount(device).map(|()| Outcome::Disk(false)),
            Step::Preen => check(device, "-p", tools)
                .and_then(|()| mount(device))
                .map(|()| Outcome::Disk(false)),
            Step::Repair => check(device, "-y", tools)
                .and_then(|()| mount(device))
                .map(|()| Outcome::Disk(false)),
            Step::FailTrial => return Ok(Outcome::FailTrial),
            Step::Memory => mounts::apply(&mounts::VAR_IN_MEMORY).map(|()| Outcome::Memory),
        };
        match done {
            Ok(outcome) => {
                if outcome == Outcome::Memory {
                    notes.push(
                        "/var is in memory: nothing written there is kept, k3s does not run".into(),
                    );
                } else if matches!(step, Step::Preen | Step::Repair) {
                    notes.push(format!("/var was checked and mended ({step:?})"));
                }
                return Ok(outcome);
            }
            Err(error) => notes.push(format!("/var: {error:#}")),
        }
    }
    anyhow::bail!("/var could not even be mounted in memory")
}

fn mount(device: &Path) -> Result<()> {
    // The initramfs has no such directory; a read-only root does.
    let _ = std::fs::create_dir_all("/var");
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NODEV;
    mounts::mount_at(
        device,
        Path::new("/var"),
        "ext4",
        flags,
        "errors=remount-ro",
    )
}

fn format(device: &Path, tools: &mut Tools<'_>) -> Result<()> {
    let device = device.to_string_lossy();
    // Lazy tables: a first boot need not write what the kernel can zero in the background.
    let options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0";
    let code = tools.run(&[
        "/usr/sbin/mkfs.ext4",
        "-q",
        "-F",
        "-L",
        "hf-var",
        "-m",
        "1",
        "-E",
        options,
        &device,
    ])?;
    anyhow::ensure!(code == 0, "mkfs.ext4 ended with {code}");
    Ok(())
}

/// `e2fsck(8)`: 0 clean, 1 mended, 2 mended and a reboot advised (not for a file system that is not
/// mounted); 4 and above: not mended.
fn check(device: &Path, how: &str, tools: &mut Tools<'_>) -> Result<()> {
    let device = device.to_string_lossy();
    let code = tools.run(&["/usr/sbin/e2fsck", how, &device])?;
    anyhow::ensure!(code & !3 == 0, "e2fsck {how} ended with {code}");
    Ok(())
}

/// Grows the mounted file system to the partition's end, where there is more than a little to gain.
pub fn grow(device: &Path) -> Result<bool> {
    let file = File::open(device).with_context(|| format!("open {}", device.display()))?;
    let bytes = block::size(&file).context("size of /var's partition")?;
    let found = read_superblock(device).context("no superblock on /var's partition")?;
    let blocks = bytes / found.block_size;
    // ext4 leaves a last group alone that is too short to hold its own tables.
    if blocks <= found.blocks || (blocks - found.blocks) * found.block_size < 16 << 20 {
        return Ok(false);
    }
    let directory = File::open("/var").context("open /var")?;
    block::ext4_resize(&directory, blocks).context("grow /var")?;
    Ok(true)
}

/// A machine id: 32 hex digits, made once (`machine-id(5)`).
pub fn new_machine_id() -> Result<String> {
    let mut bytes = [0; 16];
    // Seeded by the time a root was mounted; blocks until then, as it should.
    File::open("/dev/random")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("read /dev/random")?;
    // A random (version 4) UUID, RFC 9562.
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_known() -> impl Strategy<Value = Known> {
        (
            any::<Option<bool>>(),
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(|(formatted, trial, tools, errors)| Known {
                formatted,
                trial,
                tools,
                errors,
            })
    }

    proptest! {
        #[test]
        fn only_a_var_known_to_be_new_is_formatted(known in any_known()) {
            let plan = plan(known);
            prop_assert_eq!(plan.contains(&Step::Format), known.formatted == Some(false) && known.tools);
        }

        #[test]
        fn a_trial_repairs_nothing(known in any_known()) {
            let plan = plan(Known { trial: true, ..known });
            prop_assert!(!plan.contains(&Step::Preen) && !plan.contains(&Step::Repair));
        }

        #[test]
        fn every_plan_ends_somewhere(known in any_known()) {
            let plan = plan(known);
            prop_assert!(matches!(plan.last(), Some(Step::Memory | Step::FailTrial)));
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 1024)) {
            let _ = superblock(&bytes.try_into().unwrap());
        }
    }

    #[test]
    fn a_superblock_tells_size_and_state() {
        let mut bytes = [0; 1024];
        assert_eq!(superblock(&bytes), None);
        bytes[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        bytes[4..8].copy_from_slice(&1000_u32.to_le_bytes());
        bytes[0x18] = 2;
        bytes[0x3a] = 1;
        assert_eq!(
            superblock(&bytes),
            Some(Superblock {
                errors: false,
                blocks: 1000,
                block_size: 4096
            })
        );
        bytes[0x3a] = 3;
        assert!(superblock(&bytes).unwrap().errors);
    }
}
