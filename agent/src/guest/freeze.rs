//! Holding all writes to `/var` while the host copies its disk.
//!
//! QEMU's own agent leaves a file system frozen until it is told otherwise. Here it thaws by itself
//! after [`LONGEST`]: a host that forgets must not take a node away. Frozen, nothing that the node
//! needs to be reached is held: slot record, state and seed are partitions of their own, init and
//! agent run from memory and write to `/var` nowhere that they wait for. The log child may wait, and
//! behind it the agent's log thread, whose queue drops lines; so do containers.

use super::wire::{Outcome, Refusal};
use serde_json::json;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How long writes are held at most: a copy-on-write snapshot is made within a second or two.
pub const LONGEST: Duration = Duration::from_secs(60);

/// A thaw that fails is tried again after this, until it does not.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a host that asks for the thaw waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can be frozen.
pub trait Freezable: Clone + Send + 'static {
    /// Its frozen state.
    type Frozen: Frozen;
    /// Writes out what waits, and holds further writes. `None`: this file system cannot.
    fn freeze(&self) -> io::Result<Option<Self::Frozen>>;
}

/// What is frozen, with all that its thaw needs: descriptors may be short by then.
pub trait Frozen {
    /// Lets writes go on. False: they were not held.
    fn thaw(&self) -> io::Result<bool>;
}

/// Holds and lets go; a thread of its own keeps the deadline, so that nothing that waits for the
/// disk can be in its way.
pub struct Freezer<F> {
    what: F,
    longest: Duration,
    held: Option<Held>,
}

struct Held {
    release: Sender<()>,
    thawed: Receiver<Why>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Asked,
    TooLong,
}

impl<F: Freezable> Freezer<F> {
    /// Nothing is frozen.
    pub fn new(what: F, longest: Duration) -> Self {
        Self {
            what,
            longest,
            held: None,
        }
    }

    /// Freezes; returns how many file systems are frozen.
    pub fn freeze(&mut self) -> Outcome {
        if self.frozen() {
            return Err(Refusal::generic("/var is frozen already"));
        }
        self.held = None;
        let (release, asked) = channel();
        let (told, began) = channel();
        let (tell_thawed, thawed) = channel();
        let (what, longest) = (self.what.clone(), self.longest);
        std::thread::Builder::new()
            .name("freeze".into())
            .spawn(move || {
                let frozen = match what.freeze() {
                    Ok(Some(frozen)) => frozen,
                    other => {
                        let _ = told.send(other.map(|_| false));
                        return;
                    }
                };
                let _ = told.send(Ok(true));
                // A sender that is gone is as good as asked.
                let why = match asked.recv_timeout(longest) {
                    Err(RecvTimeoutError::Timeout) => Why::TooLong,
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => Why::Asked,
                };
                while frozen.thaw().is_err() {
                    std::thread::sleep(AGAIN);
                }
                let _ = tell_thawed.send(why);
            })
            .map_err(|e| Refusal::generic(format!("no thread: {e}")))?;
        match began.recv() {
            Ok(Ok(true)) => {
                self.held = Some(Held { release, thawed });
                Ok(json!(1))
            }
            Ok(Ok(false)) => Ok(json!(0)),
            Ok(Err(e)) => Err(Refusal::generic(format!("/var cannot be frozen: {e}"))),
            Err(_) => Err(Refusal::generic("the freezing thread died")),
        }
    }

    /// Thaws; returns how many file systems were frozen. One that thawed by itself is an error, once:
    /// what the host copied is not what it believes.
    pub fn thaw(&mut self) -> Outcome {
        let Some(held) = self.held.take() else {
            return Ok(json!(0));
        };
        let _ = held.release.send(());
        match held.thawed.recv_timeout(PATIENCE) {
            Ok(Why::Asked) => Ok(json!(1)),
            Ok(Why::TooLong) => Err(Refusal::generic(format!(
                "/var was thawed by itself after {} s: what was copied since is not consistent",
                self.longest.as_secs()
            ))),
            Err(RecvTimeoutError::Timeout) => {
                self.held = Some(held);
                Err(Refusal::generic(
                    "/var cannot be thawed: it is tried again and again",
                ))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Refusal::generic("the freezing thread died"))
            }
        }
    }

    /// Whether writes are held now.
    pub fn frozen(&mut self) -> bool {
        // Peeking would lose the word that it thawed by itself: it is put back.
        let Some(held) = &self.held else { return false };
        match held.thawed.try_recv() {
            Err(std::sync::mpsc::TryRecvError::Empty) => true,
            Ok(word) => {
                let (again, thawed) = channel();
                let _ = again.send(word);
                let release = held.release.clone();
                self.held = Some(Held { release, thawed });
                false
            }
            Err(std::sync::mpsc::TryRecvError::Disconnected) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Fake {
        frozen: Arc<Mutex<bool>>,
        cannot: bool,
        /// So many thaws fail.
        fails: Arc<Mutex<u32>>,
    }

    impl Freezable for Fake {
        type Frozen = Self;
        fn freeze(&self) -> io::Result<Option<Self>> {
            *self.frozen.lock().unwrap() = !self.cannot;
            Ok((!self.cannot).then(|| self.clone()))
        }
    }

    impl Frozen for Fake {
        fn thaw(&self) -> io::Result<bool> {
            let mut fails = self.fails.lock().unwrap();
            if *fails > 0 {
                *fails -= 1;
                return Err(io::Error::other("no"));
            }
            Ok(std::mem::take(&mut *self.frozen.lock().unwrap()))
        }
    }

    #[test]
    fn a_thaw_that_fails_is_tried_again() {
        let fake = Fake::default();
        *fake.fails.lock().unwrap() = 3;
        let mut freezer = Freezer::new(fake.clone(), LONGEST);
        freezer.freeze().unwrap();
        assert_eq!(freezer.thaw(), Ok(json!(1)));
        assert!(!*fake.frozen.lock().unwrap());
        // Without a host that asks, too.
        *fake.fails.lock().unwrap() = 3;
        let mut freezer = Freezer::new(fake.clone(), Duration::from_millis(20));
        freezer.freeze().unwrap();
        wait_thawed(&fake);
    }

    fn wait_thawed(fake: &Fake) {
        while *fake.frozen.lock().unwrap() {
            std::thread::yield_now();
        }
    }

    /// The word that it thawed comes after the thaw itself.
    fn wait_told(freezer: &mut Freezer<Fake>) {
        while freezer.frozen() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn freezes_once_and_thaws_when_asked() {
        let fake = Fake::default();
        let mut freezer = Freezer::new(fake.clone(), LONGEST);
        assert_eq!(freezer.thaw(), Ok(json!(0)));
        assert_eq!(freezer.freeze(), Ok(json!(1)));
        assert!(*fake.frozen.lock().unwrap() && freezer.frozen());
        assert!(freezer.freeze().is_err());
        assert_eq!(freezer.thaw(), Ok(json!(1)));
        assert!(!*fake.frozen.lock().unwrap() && !freezer.frozen());
    }

    #[test]
    fn a_host_that_forgets_is_not_waited_for_and_hears_of_it_once() {
        let fake = Fake::default();
        let mut freezer = Freezer::new(fake.clone(), Duration::from_millis(20));
        freezer.freeze().unwrap();
        wait_thawed(&fake);
        wait_told(&mut freezer);
        assert!(!freezer.frozen());
        assert!(freezer.thaw().is_err());
        assert_eq!(freezer.thaw(), Ok(json!(0)));
        freezer.freeze().unwrap();
        wait_thawed(&fake);
        wait_told(&mut freezer);
        freezer.freeze().unwrap();
    }

    #[test]
    fn a_port_that_dies_thaws() {
        let fake = Fake::default();
        let mut freezer = Freezer::new(fake.clone(), LONGEST);
        freezer.freeze().unwrap();
        drop(freezer);
        wait_thawed(&fake);
    }

    #[test]
    fn memory_cannot_be_frozen_and_that_is_no_error() {
        let fake = Fake {
            cannot: true,
            ..Fake::default()
        };
        let mut freezer = Freezer::new(fake, LONGEST);
        assert_eq!(freezer.freeze(), Ok(json!(0)));
        assert!(!freezer.frozen());
    }
}
