//! Loading beside the rest of the start.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::SigSet;

type Failures = Arc<Mutex<Option<Vec<String>>>>;

/// Tells when even what nobody waits for is done.
#[derive(Debug, Clone, Default)]
pub struct Rest(Arc<AtomicBool>);

impl Rest {
    /// Whether it is.
    pub fn done(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Work on a thread of its own.
pub struct Background {
    rest: Rest,
    /// Its other end is closed when the work is done.
    done: PipeReader,
    failures: Failures,
}

impl Background {
    /// Begins; `work` returns what failed, in words.
    pub fn start(work: impl FnOnce() -> Vec<String> + Send + 'static) -> io::Result<Self> {
        Self::start_with_rest(work, || ())
    }

    /// As [`Self::start`]; `rest` is done after it, and nobody waits for that.
    pub fn start_with_rest(
        work: impl FnOnce() -> Vec<String> + Send + 'static,
        rest: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (done, writer) = io::pipe()?;
        let failures = Failures::default();
        let place = failures.clone();
        let everything = Rest::default();
        let told = everything.clone();
        std::thread::Builder::new()
            .name("modules".into())
            .spawn(move || {
                run(work, &place, writer);
                let _ = catch_unwind(AssertUnwindSafe(rest));
                told.0.store(true, Ordering::Release);
            })?;
        Ok(Self {
            rest: everything,
            done,
            failures,
        })
    }

    /// How far what nobody waits for is.
    pub fn rest(&self) -> Rest {
        self.rest.clone()
    }

    /// Readable once the work is done.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }

    /// What failed, once the work is done.
    pub fn finished(&self) -> Option<Vec<String>> {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

fn run(work: impl FnOnce() -> Vec<String>, place: &Failures, writer: PipeWriter) {
    // PID 1 reads its signals from a descriptor: a thread that does not block them would take them
    // away.
    let _ = SigSet::all().thread_block();
    let failed = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| vec!["loading modules ended in a panic".into()]);
    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
    drop(writer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn the_end_is_felt_and_told_once() {
        let background = Background::start(|| vec!["a".into()]).unwrap();
        let mut set = [PollFd::new(background.descriptor(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut set, PollTimeout::NONE).unwrap(), 1);
        assert_eq!(background.finished(), Some(vec!["a".into()]));
        assert_eq!(background.finished(), None);
    }

    #[test]
    fn a_panic_is_an_end_too() {
        let background = Background::start(|| panic!("on purpose")).unwrap();
        let mut set = [PollFd::new(background.descriptor(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut set, PollTimeout::NONE).unwrap(), 1);
        assert_eq!(background.finished().unwrap().len(), 1);
    }
}
