//! Kernel modules and the watchdog, in the order in which a hang does least harm.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::kmsg;
use crate::modules::background::Background;
use crate::modules::{self, Which};
use crate::sys::watchdog::Watchdog;
use crate::system::Dog;

/// Seconds that the hardware waits for food.
const WATCHDOG_SECONDS: i32 = 60;
/// How often it is looked for while its driver loads, in milliseconds.
const WATCHDOG_LOOK: u16 = 20;

/// Loads what the start waits for. The watchdog is armed as soon as its driver is there and not fed
/// meanwhile (a driver may have stopped what the loader armed): a module that hangs ends in a reset.
pub fn load_first(notes: &mut Vec<String>) -> Dog {
    let work = || modules::load(Path::new("/"), modules::BOOT_LIST, Which::Now);
    let mut dog = None;
    match Background::start(work) {
        Ok(loading) => loop {
            dog = dog.or_else(|| armed().ok());
            if let Some(failed) = loading.finished() {
                notes.extend(failed);
                break;
            }
            let mut set = [PollFd::new(loading.descriptor(), PollFlags::POLLIN)];
            let _ = poll(&mut set, PollTimeout::from(WATCHDOG_LOOK));
        },
        Err(_) => notes.extend(work()),
    }
    dog.or_else(|| {
        armed()
            .map_err(|error| notes.push(format!("no hardware watchdog: {error}")))
            .ok()
    })
    .unwrap_or_else(|| Dog::new(None))
}

/// What only services need, and after it, where the disk was found without them, the boot modules
/// that were put off: beside the start of the agent.
pub fn load_the_rest(
    root_mounted: bool,
    initramfs: Option<OwnedFd>,
) -> std::io::Result<Background> {
    let for_services = move || {
        let root = Path::new("/");
        if !root_mounted || !root.join(modules::ROOT_LIST).exists() {
            return Vec::new();
        }
        let mut failed = modules::load(root, modules::ROOT_LIST, Which::Now);
        failed.extend(modules::load(root, modules::ROOT_LIST, Which::Later));
        failed
    };
    let put_off = Arc::new(initramfs);
    let rest = put_off.clone();
    Background::start_with_rest(
        move || {
            let failed = for_services();
            if failed.is_empty() || put_off.is_none() {
                return failed;
            }
            // One of them may need a module that was put off.
            load_put_off(put_off.as_ref().as_ref());
            for_services()
        },
        move || load_put_off(rest.as_ref().as_ref()),
    )
}

/// Failures are in the kernel's log: what is missing drives no disk that this node started from.
fn load_put_off(initramfs: Option<&OwnedFd>) {
    if let Some(initramfs) = initramfs {
        let root = PathBuf::from(format!("/proc/self/fd/{}", initramfs.as_raw_fd()));
        modules::load(&root, modules::BOOT_LIST, Which::Later);
    }
}

fn armed() -> std::io::Result<Dog> {
    let (watchdog, seconds) = Watchdog::open(WATCHDOG_SECONDS)?;
    kmsg::notice(format_args!("watchdog armed, {seconds} s"));
    Ok(Dog::new(Some(watchdog)))
}
