//! Waiting on descriptors that a stop interrupts.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::Duration;

/// Ends the threads of a mesh member wherever they wait. Raised once, it stays so.
#[derive(Debug)]
pub(crate) struct Stop {
    raised: AtomicBool,
    /// Readable once raised; never read, so that every thread sees it.
    event: EventFd,
}

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            raised: AtomicBool::new(false),
            event: event()?,
        })
    }

    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        // Fails only when the counter is at its end, and then it is readable too.
        let _ = self.event.write(1);
    }

    pub(crate) fn raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Waits until one of `fds`, two at most, can be read.
    pub(crate) fn readable<'a>(
        &'a self,
        fds: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<()> {
        self.wait(fds, PollFlags::POLLIN, PollTimeout::NONE)
    }

    /// Waits until `fd` can be written.
    pub(crate) fn writable(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.wait(std::iter::once(fd), PollFlags::POLLOUT, PollTimeout::NONE)
    }

    /// Lets `time` pass.
    pub(crate) fn sleep(&self, time: Duration) {
        let limit = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        // A fault of poll itself must not make a busy loop of this.
        if self
            .wait(std::iter::empty(), PollFlags::empty(), limit)
            .is_err()
        {
            std::thread::sleep(time);
        }
    }

    /// Waits for descriptors (two at most), the stop or a time. Whoever waited looks at
    /// [`raised`](Self::raised) and at the descriptors.
    fn wait<'a>(
        &'a self,
        fds: impl Iterator<Item = BorrowedFd<'a>>,
        flags: PollFlags,
        limit: PollTimeout,
    ) -> io::Result<()> {
        let stop = || PollFd::new(self.event.as_fd(), PollFlags::POLLIN);
        let mut all = std::array::from_fn::<_, 3, _>(|_| stop());
        let mut count = 1;
        for (place, fd) in all[1..].iter_mut().zip(fds) {
            *place = PollFd::new(fd, flags);
            count += 1;
        }
        match poll(&mut all[..count], limit) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// Wakes a thread that polls it: an async channel's way to a plain thread.
#[derive(Debug)]
pub(crate) struct Bell(EventFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        event().map(Self)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// It rang for nothing before now.
    pub(crate) fn silence(&self) {
        let _ = self.0.read();
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.write(1);
    }
}

fn event() -> io::Result<EventFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    EventFd::from_value_and_flags(0, flags).map_err(io::Error::from)
}
