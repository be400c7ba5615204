//! Starting a process in its cgroup, with the descriptors it is meant to have.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::SigSet;

/// What to start.
pub struct Launch<'a> {
    /// The program file.
    pub program: &'a Path,
    /// Its name and arguments.
    pub argv: &'a [String],
    /// Its whole environment, `NAME=VALUE`.
    pub env: &'a [String],
    /// Its cgroup's `cgroup.procs`, open for writing.
    pub cgroup: Option<File>,
    /// Standard output and error; `/dev/null` without.
    pub output: Option<OwnedFd>,
    /// Descriptors to hand over as 3, 4, ...
    pub pass: &'a [BorrowedFd<'a>],
}

/// Starts it and returns its process id. The caller reaps.
#[allow(
    clippy::zombie_processes,
    reason = "PID 1 reaps every child in its event loop"
)]
pub fn spawn(launch: Launch<'_>) -> io::Result<u32> {
    let mut command = Command::new(launch.program);
    if let Some((name, rest)) = launch.argv.split_first() {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .envs(launch.env.iter().filter_map(|pair| pair.split_once('=')));
    command.current_dir("/").stdin(Stdio::null());
    match launch.output {
        Some(fd) => {
            command.stderr(fd.try_clone()?).stdout(fd);
        }
        None => {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
    }
    // Numbers above those handed over, so that no dup2 below overwrites a source.
    let first = 3 + i32::try_from(launch.pass.len()).unwrap_or(0) + 16;
    let sources = launch
        .pass
        .iter()
        .map(|fd| above(*fd, first))
        .collect::<io::Result<Vec<_>>>()?;
    let numbers: Vec<i32> = sources.iter().map(AsRawFd::as_raw_fd).collect();
    let cgroup = launch.cgroup;
    let prepare = move || {
        if let Some(procs) = &cgroup {
            nix::unistd::write(procs, b"0")?;
        }
        nix::unistd::setsid()?;
        // Init blocks the signals it reads from a descriptor; a child inherits that.
        SigSet::empty().thread_set_mask()?;
        for (number, to) in numbers.iter().zip(3..) {
            // SAFETY: dup2 only makes `to` another name of an open file; the child owns its table.
            if unsafe { libc::dup2(*number, to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls (write, setsid, sigprocmask,
    // dup2) on
    // descriptors opened before; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(prepare) };
    command.spawn().map(|child| child.id())
}

/// A copy of `fd` numbered `first` or higher, closed on exec.
fn above(fd: BorrowedFd<'_>, first: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: F_DUPFD_CLOEXEC returns a new descriptor or -1 and touches nothing else.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `copy` was just made and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
