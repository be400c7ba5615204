//! What is mounted where, as values, and the few functions that do it.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;

/// One mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mount {
    /// The device, or the kernel's name of none.
    pub source: &'static str,
    /// The directory, made if it can be.
    pub target: &'static str,
    /// File system type.
    pub kind: &'static str,
    /// Flags.
    pub flags: MsFlags,
    /// The file system's own options.
    pub options: &'static str,
}

const SAFE: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

const fn pseudo(
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    options: &'static str,
) -> Mount {
    Mount {
        source: kind,
        target,
        kind,
        flags,
        options,
    }
}

/// The kernel's own file systems, before anything else; they move along into the root.
pub const EARLY: [Mount; 7] = [
    pseudo("proc", "/proc", SAFE, ""),
    pseudo("sysfs", "/sys", SAFE, ""),
    pseudo("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=755"),
    pseudo(
        "devpts",
        "/dev/pts",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        "gid=5,mode=620,ptmxmode=666",
    ),
    pseudo(
        "tmpfs",
        "/dev/shm",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        "mode=1777",
    ),
    // Container runtimes execute what they put there: no MS_NOEXEC.
    pseudo(
        "tmpfs",
        "/run",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        "mode=755,size=50%",
    ),
    pseudo("cgroup2", "/sys/fs/cgroup", SAFE, "nsdelegate"),
];

/// The mounts that move into the root when it becomes `/`.
const MOVED: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

/// `/tmp`, after the root.
pub const TMP: Mount = pseudo(
    "tmpfs",
    "/tmp",
    MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
    "mode=1777,size=25%",
);

/// `/var` when there is no disk for it.
pub const VAR_IN_MEMORY: Mount = pseudo(
    "tmpfs",
    "/var",
    MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
    "mode=755,size=25%",
);

/// Directories on `/var` that others count on.
pub const VAR_DIRECTORIES: [&str; 8] = [
    "/var/etc/rancher",
    "/var/lib/cni",
    "/var/lib/holdfast",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/log/holdfast",
    "/var/log/pods",
    "/var/tmp",
];

/// Writable places in the read-only `/etc`, and what on `/var` they are.
pub const BINDS: [(&str, &str); 1] = [("/var/etc/rancher", "/etc/rancher")];

/// Mounts one.
pub fn apply(entry: &Mount) -> Result<()> {
    // On a read-only root the directory is there or the mount says so.
    let _ = std::fs::create_dir_all(entry.target);
    mount_at(
        Path::new(entry.source),
        Path::new(entry.target),
        entry.kind,
        entry.flags,
        entry.options,
    )
}

/// Mounts `source` on `target`.
pub fn mount_at(
    source: &Path,
    target: &Path,
    kind: &str,
    flags: MsFlags,
    options: &str,
) -> Result<()> {
    mount(Some(source), target, Some(kind), flags, Some(options))
        .with_context(|| format!("mount {kind} {} on {}", source.display(), target.display()))
}

/// Makes `source` visible at `target`, which exists.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .with_context(|| format!("bind {} to {}", source.display(), target.display()))
}

/// A descriptor of a program in the initramfs, by which it can be executed when the root covers it.
pub fn keep_program(path: &str) -> Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("find {path}"))
}

/// Makes the file system mounted at `root` the root of everything. The initramfs stays underneath,
/// in memory, with what was opened from it.
pub fn enter_root(root: &Path) -> Result<()> {
    for from in MOVED {
        let to = root.join(from.trim_start_matches('/'));
        mount(
            Some(Path::new(from)),
            &to,
            None::<&str>,
            MsFlags::MS_MOVE,
            None::<&str>,
        )
        .with_context(|| format!("move {from} to {}", to.display()))?;
    }
    std::env::set_current_dir(root).with_context(|| format!("enter {}", root.display()))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("move the root to /")?;
    nix::unistd::chroot(".").context("change to the root")?;
    std::env::set_current_dir("/").context("enter /")
}

/// Mounts made anywhere are seen everywhere: what kubelet's volumes need.
pub fn share_all() -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SHARED,
        None::<&str>,
    )
    .context("make / rshared")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_mounted_before_their_children() {
        for (i, entry) in EARLY.iter().enumerate() {
            let covered = EARLY[i + 1..]
                .iter()
                .any(|later| entry.target.starts_with(&format!("{}/", later.target)));
            assert!(!covered, "{} would be hidden", entry.target);
        }
    }

    #[test]
    fn everything_early_moves_into_the_root() {
        for entry in &EARLY {
            assert!(
                MOVED
                    .iter()
                    .any(|m| entry.target == *m || entry.target.starts_with(&format!("{m}/")))
            );
        }
    }
}
