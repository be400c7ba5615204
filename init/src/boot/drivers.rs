//! Kernel modules and the watchdog, in the order in which a hang does least harm.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_core::image::SYSCTL_CONF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::dog::{self, Dog};
use crate::modules::background::Background;
use crate::modules::{self, Which};
use crate::sysctl;

/// How often watchdogs are looked for while drivers load, in milliseconds.
const WATCHDOG_LOOK: u16 = 20;

/// Loads what the start waits for. Watchdogs are armed as soon as their drivers are there and not
/// fed meanwhile (a driver may have stopped what the loader armed): a module that hangs ends in a
/// reset.
pub fn load_first(watchdog: bool, notes: &mut Vec<String>) -> Dog {
    let work = || modules::load(Path::new("/"), modules::BOOT_LIST, Which::Now);
    let mut dog = Dog::new(watchdog);
    match Background::start(work) {
        Ok(loading) => loop {
            dog.look();
            if let Some(failed) = loading.finished() {
                notes.extend(failed);
                break;
            }
            let mut set = [PollFd::new(loading.descriptor(), PollFlags::POLLIN)];
            let _ = poll(&mut set, PollTimeout::from(WATCHDOG_LOOK));
        },
        Err(_) => notes.extend(work()),
    }
    dog.look();
    dog
}

/// What only services need, then the recipe's kernel settings, some of which are there with a module
/// only; after them, where the disk was found without them, the boot modules that were put off:
/// beside the start of the agent. Last what stands in for a watchdog, where none of all these drivers
/// brought one.
pub fn load_the_rest(
    root_mounted: bool,
    initramfs: OwnedFd,
    all_loaded: bool,
) -> std::io::Result<Background> {
    let for_services = move |which: &[Which]| {
        let root = Path::new("/");
        if !root_mounted || !root.join(modules::ROOT_LIST).exists() {
            return Vec::new();
        }
        let load = |which: &Which| modules::load(root, modules::ROOT_LIST, *which);
        which.iter().flat_map(load).collect()
    };
    const ALL: [Which; 2] = [Which::Now, Which::Later];
    let initramfs = Arc::new(initramfs);
    let rest = initramfs.clone();
    Background::start_with_rest(
        move || {
            let mut failed = for_services(&ALL);
            if !failed.is_empty() && !all_loaded {
                // One of them may need a module that was put off.
                load_of_boot(&initramfs, Which::Later);
                failed = for_services(&ALL);
            }
            if root_mounted {
                failed.extend(sysctl::apply(Path::new(SYSCTL_CONF)));
            }
            failed
        },
        move || {
            if !all_loaded {
                load_of_boot(&rest, Which::Later);
            }
            if !dog::any() {
                load_of_boot(&rest, Which::Last);
                for_services(&[Which::Last]);
            }
        },
    )
}

/// Failures are in the kernel's log: what is missing drives no disk that this node started from.
fn load_of_boot(initramfs: &OwnedFd, which: Which) {
    let root = PathBuf::from(format!("/proc/self/fd/{}", initramfs.as_raw_fd()));
    modules::load(&root, modules::BOOT_LIST, which);
}
