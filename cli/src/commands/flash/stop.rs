//! Ctrl-C: ends at once while nothing is written, else after the write that runs; the second one
//! ends in any case. A medium that is half written starts nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// As shells say "ended by SIGINT".
const INTERRUPTED: i32 = 130;

/// What the signal has to say to the writer, and the reverse.
#[derive(Debug, Default)]
pub struct Stop {
    wanted: AtomicBool,
    writing: AtomicBool,
}

impl Stop {
    /// Begins to watch for signals.
    pub fn watch() -> io::Result<Arc<Self>> {
        let stop = Arc::new(Self::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut interrupts, mut terms) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        let mine = stop.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                runtime.block_on(async {
                    loop {
                        tokio::select! {
                            _ = interrupts.recv() => {}
                            _ = terms.recv() => {}
                        }
                        let again = mine.wanted.swap(true, Ordering::SeqCst);
                        if again || !mine.writing.load(Ordering::SeqCst) {
                            std::process::exit(INTERRUPTED);
                        }
                    }
                });
            })?;
        Ok(stop)
    }

    /// The flag for the writer.
    pub fn wanted(&self) -> &AtomicBool {
        &self.wanted
    }

    /// Does `work`, during which a signal only sets the flag.
    pub fn while_writing<T>(&self, work: impl FnOnce() -> T) -> T {
        self.writing.store(true, Ordering::SeqCst);
        let result = work();
        self.writing.store(false, Ordering::SeqCst);
        result
    }
}
