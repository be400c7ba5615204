//! The end: processes, file systems, reboot. The watchdog stays armed and is fed no more than the
//! bounded waits here: a stop that hangs ends in a reset.

use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sync};

use crate::kmsg;
use crate::system::Ending;

/// How long what is left (containers) may take after SIGTERM.
const TERM_LIMIT: Duration = Duration::from_secs(10);
const KILL_LIMIT: Duration = Duration::from_secs(3);
/// A disk that hangs must not keep the node from its reboot, with a hardware watchdog or without.
const SYNC_LIMIT: Duration = Duration::from_secs(10);
const UNMOUNT_LIMIT: Duration = Duration::from_secs(15);

/// Ends every process that is left, unmounts, reboots. Services were stopped before.
pub fn in_order(ending: &Ending) {
    kmsg::notice(format_args!("stopping: {}", ending.reason));
    everyone(Signal::SIGTERM);
    reap(TERM_LIMIT);
    everyone(Signal::SIGKILL);
    reap(KILL_LIMIT);
    within(SYNC_LIMIT, sync);
    within(UNMOUNT_LIMIT, unmount_all);
    kmsg::notice(if ending.power_off {
        "switching off"
    } else {
        "rebooting"
    });
}

/// Reboots now, or switches the machine off; what was not written is lost.
pub fn at_once(power_off: bool) -> ! {
    within(SYNC_LIMIT, sync);
    if power_off {
        // Comes back with an error where the machine cannot.
        let _ = reboot(RebootMode::RB_POWER_OFF);
    }
    loop {
        // Only ever returns with an error, and there is nothing left to try but again.
        let _ = reboot(RebootMode::RB_AUTOBOOT);
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Work on the disk, or goes on without it after `limit`.
fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, wait) = std::sync::mpsc::channel();
    let spawned = std::thread::Builder::new()
        .name("stop".into())
        .spawn(move || {
            work();
            let _ = done.send(());
        });
    if spawned.is_err() || wait.recv_timeout(limit).is_err() {
        kmsg::warning("the disk did not take everything in time");
    }
}

fn everyone(signal: Signal) {
    // -1: every process but this one.
    let _ = kill(Pid::from_raw(-1), signal);
}

/// Waits until no child is left; orphans become children of PID 1.
fn reap(limit: Duration) {
    let began = Instant::now();
    while began.elapsed() < limit {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(5)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Mount points that hold data, the innermost first.
fn unmount_order(mounts: &str) -> Vec<String> {
    const KEPT: [&str; 5] = ["/", "/proc", "/sys", "/dev", "/run"];
    let fields = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?, words.next()?, words.next()?))
    });
    let mut targets: Vec<String> = fields
        .filter(|(_, target, _)| {
            !KEPT.iter().any(|k| {
                target == k || (*k != "/" && target.starts_with(&format!("{k}/")) && *k != "/run")
            })
        })
        // The kernel writes a space in a path as \040 (proc(5)).
        .map(|(_, target, _)| target.replace("\\040", " "))
        .collect();
    targets.reverse();
    targets
}

fn unmount_all() {
    // What holds one mount may be another: twice is enough for everything that can go.
    for _ in 0..2 {
        for target in unmount_order(&fs::read_to_string("/proc/mounts").unwrap_or_default()) {
            if umount2(target.as_str(), MntFlags::UMOUNT_NOFOLLOW).is_err() {
                let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                let _ = mount(
                    None::<&str>,
                    target.as_str(),
                    None::<&str>,
                    flags,
                    None::<&str>,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_unmounted_innermost_first_and_the_kernels_own_stays() {
        let mounts = "/dev/dm-0 / erofs ro 0 0\nproc /proc proc rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n\
                      tmpfs /run tmpfs rw 0 0\n/dev/vda10 /var ext4 rw 0 0\noverlay /run/k3s/a\\040b overlay rw 0 0\n\
                      /dev/vda10 /etc/rancher ext4 rw 0 0\n";
        assert_eq!(
            unmount_order(mounts),
            ["/etc/rancher", "/run/k3s/a b", "/var"]
        );
    }
}
