//! The threads of one mesh member, and how they end together.

use crate::error::MeshError;
use crate::stop::Stop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Knows when all threads have ended, and why the first one did.
pub(crate) struct End {
    stop: Arc<Stop>,
    state: Mutex<State>,
    ended: watch::Sender<Option<Arc<MeshError>>>,
}

struct State {
    running: usize,
    why: Option<MeshError>,
}

impl End {
    /// For so many threads.
    pub(crate) fn of(threads: usize, stop: Arc<Stop>) -> Arc<Self> {
        Arc::new(Self {
            stop,
            state: Mutex::new(State {
                running: threads,
                why: None,
            }),
            ended: watch::channel(None).0,
        })
    }

    /// Tells why the threads ended, once all have and what they held is given back.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<MeshError>>> {
        self.ended.subscribe()
    }

    /// Runs `body` as a thread; when it ends, by a panic too, all others are stopped.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: &str,
        body: impl FnOnce() -> MeshError + Send + 'static,
    ) {
        let end = self.clone();
        let thread = move || {
            let result = catch_unwind(AssertUnwindSafe(body));
            end.one(result.unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                MeshError::Panic(text.unwrap_or_else(|| "without a word".to_owned()))
            }));
        };
        if let Err(e) = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(thread)
        {
            self.one(MeshError::Thread(e));
        }
    }

    fn one(&self, why: MeshError) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running = state.running.saturating_sub(1);
        state.why.get_or_insert(why);
        self.stop.raise();
        if state.running == 0 {
            self.ended.send_replace(state.why.take().map(Arc::new));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_all_and_is_told() {
        let stop = Arc::new(Stop::new().unwrap());
        let end = End::of(2, stop.clone());
        let mut ended = end.watch();
        let held = Arc::new(());
        let lent = held.clone();
        end.spawn("waits", move || {
            while !stop.raised() {
                stop.sleep(std::time::Duration::from_secs(60));
            }
            drop(lent);
            MeshError::Stopped
        });
        end.spawn("fails", || panic!("{}", "on purpose"));
        let why = ended.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(
            why.unwrap().to_string(),
            "the mesh engine panicked: on purpose"
        );
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
