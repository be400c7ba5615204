//! The log child: takes in what the node's programs write (journald's socket, their output, the
//! kernel's log), bounds it, keeps it, serves it. It drops and counts rather than make anyone wait.
//!
//! Init hands it two sockets: journald's (3) and its own listener (4).
#![allow(unsafe_code)]

mod journal;
mod limit;
mod serve;
mod store;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use holdfast_core::control::LogLine;
use nix::cmsg_space;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::services::OUTPUT_DIRECTORY;
use journal::{Entry, MESSAGE_MAX};
use limit::{Limiter, Verdict};
use serve::Readers;
use store::Store;

/// journald's native socket: what `tracing-journald` and many others write to.
const JOURNAL: &str = "/run/systemd/journal/socket";
const DIRECTORY: &str = "/var/log/holdfast";
/// How far the kernel's log was read, for a child that is started anew.
const SEEN: &str = "/run/holdfast/log-kernel-seen";
/// Files of [`store::SEGMENT`] bytes on a disk, and in memory.
const SEGMENTS: usize = 32;
const SEGMENTS_IN_MEMORY: usize = 3;
const TURN: Duration = Duration::from_millis(1000);
const DATAGRAM: usize = 256 * 1024;

/// Binds journald's socket; anyone on the node may write to it.
pub fn bind_journal() -> Result<OwnedFd> {
    let path = Path::new(JOURNAL);
    let parent = path.parent().unwrap_or(Path::new("/run"));
    std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    let _ = std::fs::remove_file(path);
    let socket = UnixDatagram::bind(path).with_context(|| format!("bind {JOURNAL}"))?;
    socket
        .set_nonblocking(true)
        .with_context(|| format!("configure {JOURNAL}"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
        .with_context(|| format!("open up {JOURNAL}"))?;
    Ok(socket.into())
}

/// A descriptor that init handed over.
fn inherited(number: i32) -> OwnedFd {
    // SAFETY: init starts this process with descriptors 3 and 4 open for it, and each is taken once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

struct Child {
    journal: UnixDatagram,
    kernel: Option<File>,
    kernel_seen: u64,
    outputs: BTreeMap<String, Output>,
    limiter: Limiter,
    store: Store,
    began: Instant,
}

struct Output {
    fifo: File,
    pending: Vec<u8>,
}

/// Runs until SIGTERM.
pub fn run() -> Result<()> {
    let journal = UnixDatagram::from(inherited(3));
    let listener = UnixListener::from(inherited(4));
    journal.set_nonblocking(true)?;
    listener.set_nonblocking(true)?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;

    let directory = Path::new(DIRECTORY);
    let in_memory = nix::sys::statfs::statfs("/var")
        .is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC);
    let store = Store::open(
        directory,
        if in_memory {
            SEGMENTS_IN_MEMORY
        } else {
            SEGMENTS
        },
    )?;
    let kernel = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .ok();
    let kernel_seen = std::fs::read_to_string(SEEN)
        .ok()
        .and_then(|t| t.trim().parse().ok())
        .unwrap_or(0);
    let mut child = Child {
        journal,
        kernel,
        kernel_seen,
        outputs: BTreeMap::new(),
        limiter: Limiter::default(),
        store,
        began: Instant::now(),
    };
    let readers = Readers::default();
    loop {
        child.find_outputs();
        child.wait(&listener, &signals)?;
        child.take_journal();
        child.take_outputs();
        child.take_kernel();
        while let Ok((stream, _)) = listener.accept() {
            readers.serve(stream, directory);
        }
        // A full disk is no reason to stop reading: senders would block.
        let _ = child.store.tick(readers.any());
        if matches!(signals.read_signal(), Ok(Some(_))) {
            return child.store.flush();
        }
    }
}

impl Child {
    fn wait(&self, listener: &UnixListener, signals: &SignalFd) -> Result<()> {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut set = vec![
            readable(self.journal.as_fd()),
            readable(listener.as_fd()),
            readable(signals.as_fd()),
        ];
        set.extend(self.kernel.iter().map(|k| readable(k.as_fd())));
        set.extend(self.outputs.values().map(|o| readable(o.fifo.as_fd())));
        match poll(
            &mut set,
            PollTimeout::try_from(TURN).unwrap_or(PollTimeout::ZERO),
        ) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("wait for lines"),
        }
    }

    fn keep(&mut self, entry: Entry) {
        let dropped = match self.limiter.judge(&entry.unit, self.began.elapsed()) {
            Verdict::Drop => return,
            Verdict::Keep(dropped) => dropped,
        };
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_micros() as u64);
        if dropped > 0 {
            let message = format!(
                "{dropped} lines of {} dropped: it wrote too fast",
                entry.unit
            );
            let _ = self.store.push(&LogLine {
                at,
                unit: entry.unit.clone(),
                priority: 4,
                message,
            });
        }
        let line = LogLine {
            at,
            unit: entry.unit,
            priority: entry.priority,
            message: entry.message,
        };
        let _ = self.store.push(&line);
    }

    fn take_journal(&mut self) {
        let mut buffer = vec![0; DATAGRAM];
        // Bounded, so that a flood here does not silence the rest.
        for _ in 0..1000 {
            match receive(&self.journal, &mut buffer) {
                Some(datagram) => {
                    if let Some(entry) = journal::native(&datagram) {
                        self.keep(entry);
                    }
                }
                None => return,
            }
        }
    }

    /// Services come and go; each has a FIFO of its name.
    fn find_outputs(&mut self) {
        for entry in std::fs::read_dir(OUTPUT_DIRECTORY)
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if self.outputs.contains_key(&name) {
                continue;
            }
            // Open for writing too: without it a FIFO whose last writer left reads as ended for ever.
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(nix::libc::O_NONBLOCK)
                .open(entry.path());
            if let Ok(fifo) = opened {
                self.outputs.insert(
                    name,
                    Output {
                        fifo,
                        pending: Vec::new(),
                    },
                );
            }
        }
    }

    fn take_outputs(&mut self) {
        let mut lines = Vec::new();
        for (unit, output) in &mut self.outputs {
            let mut buffer = [0; 16 * 1024];
            for _ in 0..64 {
                let Ok(n @ 1..) = (&output.fifo).read(&mut buffer) else {
                    break;
                };
                output.pending.extend_from_slice(&buffer[..n]);
                for line in whole_lines(&mut output.pending) {
                    lines.push(Entry {
                        unit: unit.clone(),
                        priority: 6,
                        message: line,
                    });
                }
            }
        }
        for line in lines {
            self.keep(line);
        }
    }

    fn take_kernel(&mut self) {
        let before = self.kernel_seen;
        let mut buffer = [0; 8192];
        // The kernel gives one record a read; EPIPE says that some were overwritten before.
        for _ in 0..1000 {
            let Some(kernel) = &self.kernel else { break };
            let n = match (&*kernel).read(&mut buffer) {
                Ok(n @ 1..) => n,
                Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => continue,
                _ => break,
            };
            if let Some((sequence, entry)) = journal::kernel(&buffer[..n])
                && sequence >= self.kernel_seen
            {
                self.kernel_seen = sequence + 1;
                self.keep(entry);
            }
        }
        if self.kernel_seen != before {
            let _ = std::fs::write(SEEN, self.kernel_seen.to_string());
        }
    }
}

/// Takes whole lines off `pending`; a line that grows too long is cut.
fn whole_lines(pending: &mut Vec<u8>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut from = 0;
    while let Some(end) = pending[from..].iter().position(|&b| b == b'\n') {
        let line = journal::clean(&pending[from..from + end]);
        if !line.is_empty() {
            lines.push(line);
        }
        from += end + 1;
    }
    pending.drain(..from);
    if pending.len() > MESSAGE_MAX {
        lines.push(journal::clean(pending));
        pending.clear();
    }
    lines
}

/// One datagram, or the memory file that stands in for one too large to send.
fn receive(socket: &UnixDatagram, buffer: &mut [u8]) -> Option<Vec<u8>> {
    let mut space = cmsg_space!([std::os::fd::RawFd; 4]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
    let mut files = Vec::new();
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel made these descriptors for this process with this message; nothing
            // else owns them.
            files.extend(numbers.into_iter().map(|n| unsafe { File::from_raw_fd(n) }));
        }
    }
    let length = message.bytes;
    match files.first() {
        Some(file) => read_memory_file(file),
        None => Some(buffer.get(..length).unwrap_or_default().to_vec()),
    }
}

/// Only a sealed memory file may be read: anything else could block, or shrink while it is read.
fn read_memory_file(file: &File) -> Option<Vec<u8>> {
    let seals = nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_GET_SEALS).ok()?;
    if seals & nix::libc::F_SEAL_SHRINK == 0 {
        return Some(Vec::new());
    }
    let length = usize::try_from(file.metadata().ok()?.len())
        .unwrap_or(usize::MAX)
        .min(DATAGRAM);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_into_lines() {
        let mut pending = b"one\ntwo\n\nthr".to_vec();
        assert_eq!(whole_lines(&mut pending), ["one", "two"]);
        assert_eq!(pending, b"thr");
        let mut endless = vec![b'x'; MESSAGE_MAX + 1];
        assert_eq!(whole_lines(&mut endless).len(), 1);
        assert!(endless.is_empty());
    }

    #[test]
    fn datagrams_arrive() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.send(b"MESSAGE=hello\n").unwrap();
        let mut buffer = vec![0; DATAGRAM];
        assert_eq!(receive(&theirs, &mut buffer).unwrap(), b"MESSAGE=hello\n");
        assert_eq!(receive(&theirs, &mut buffer), None);
    }
}
