//! The clock (decision 10): never below the floor, set by what the lighthouse vouches for.
//!
//! WireGuard peers refuse a handshake whose TAI64N stamp is not later than the last one they saw,
//! so after a power cut the clock must start beyond every stamp sent before. Therefore the stored
//! floor runs ahead of the clock by up to [`AHEAD`], and a clock that is ahead is slowed down,
//! never set back, once the mesh has been up.

mod kernel;
pub mod sntp;

use crate::notes::Notes;
use crate::store::Store;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How far the stored floor may run ahead, in seconds: also the most by which a power cut can
/// leave a machine without a battery-backed clock in the future.
pub const AHEAD: u64 = 120;
/// The floor is stored anew when fewer seconds than this are left of it.
const RENEW_BELOW: u64 = 20;
/// Off by more than this in the future: an operator is told.
const WORTH_A_NOTE: u64 = 600;
/// No image runs for so many seconds (20 years) after it was built.
const HORIZON: u64 = 20 * 366 * 86_400;
/// So many seconds (5 years) after the image was built a lighthouse alone is believed: half of what
/// k3s's own authority lasts, which cannot be made anew.
const ALONE: u64 = 5 * 366 * 86_400;
/// Beyond that it may move the clock forward by so much in all (30 days), as after a time without
/// power; for more a time server has to agree.
const LEAP: u64 = 30 * 86_400;
/// To within a day.
const AGREE: u64 = 86_400;
/// How long time servers may take.
const ASKED: Duration = Duration::from_secs(10);
/// An image says that it was built earlier than this (September 2026): it does not know.
const WRITTEN: u64 = 1_790_000_000;

/// The latest moment that is known to have passed, in Unix seconds.
pub fn floor(built: u64, issued: Option<u64>, stored: u64) -> u64 {
    built.max(issued.unwrap_or(0)).max(stored)
}

/// What to do about the difference between the system's clock and the lighthouse's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjust {
    /// Set the clock to this Unix second.
    Step(u64),
    /// Run slower until the lighthouse has caught up.
    Slow,
    /// All is well.
    Keep,
}

/// Decides. `floor`: stored; `stamped`: this system may have sent TAI64N stamps.
pub fn adjust(system: u64, vouched: u64, floor: u64, stamped: bool) -> Adjust {
    if vouched > system.saturating_add(1) {
        Adjust::Step(vouched)
    } else if system > vouched.saturating_add(2) {
        if !stamped && vouched >= floor {
            Adjust::Step(vouched)
        } else {
            Adjust::Slow
        }
    } else {
        Adjust::Keep
    }
}

/// Whether a time that a lighthouse or a time server names can be one at which an image of `built`
/// runs. Far beyond it the kernel takes no time, and no other member's certificates are valid.
fn believable(time: u64, built: u64) -> bool {
    time <= built.max(WRITTEN).saturating_add(HORIZON)
}

/// How far a lighthouse alone has moved the clock beyond [`ALONE`], with this step and the `leapt`
/// seconds before; none: that is too far.
fn alone(system: u64, to: u64, built: u64, leapt: u64) -> Option<u64> {
    if to <= system || to <= built.max(WRITTEN).saturating_add(ALONE) {
        return Some(leapt);
    }
    Some(leapt.saturating_add(to - system)).filter(|all| *all <= LEAP)
}

/// The floor to store at `now`, if the stored one no longer suffices.
pub fn next_floor(now: u64, stored: u64) -> Option<u64> {
    (stored < now.saturating_add(RENEW_BELOW)).then_some(now.saturating_add(AHEAD))
}

/// The node's clock.
pub struct Clock {
    store: Arc<Store>,
    notes: Notes,
    built: u64,
    stamped: AtomicBool,
    vouched: AtomicBool,
    /// The agent ends: nothing is reserved any more.
    closing: AtomicBool,
    /// Somebody else sets this machine's clock.
    of_others: bool,
    /// Seconds; see [`alone`].
    leapt: AtomicU64,
    /// Time servers to ask.
    servers: Mutex<Vec<String>>,
}

impl Clock {
    /// Lifts the system's clock to the floor. `same_boot`: an agent ran before in this boot; its
    /// clock went on, and may not be lifted to what was only reserved.
    pub fn start(store: Arc<Store>, notes: Notes, built: u64, same_boot: bool) -> Self {
        let stored = if same_boot {
            0
        } else {
            store.get().clock_floor
        };
        let clock = Self {
            store,
            notes,
            built,
            stamped: AtomicBool::new(same_boot),
            vouched: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            of_others: false,
            leapt: AtomicU64::new(0),
            servers: Mutex::default(),
        };
        clock.lift(floor(built, None, stored));
        clock
    }

    /// On a machine whose clock others keep: it is watched, never moved.
    pub fn of_others(store: Arc<Store>, notes: Notes) -> Self {
        Self {
            store,
            notes,
            built: 0,
            stamped: AtomicBool::new(false),
            vouched: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            of_others: true,
            leapt: AtomicU64::new(0),
            servers: Mutex::default(),
        }
    }

    /// The system's time, Unix seconds.
    pub fn now() -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs())
    }

    /// Lifts the clock to at least `floor`.
    pub fn lift(&self, floor: u64) {
        if Self::now() < floor {
            tracing::info!(floor, "the clock was behind its floor: set");
            self.set(floor);
        }
    }

    fn set(&self, to: u64) {
        if self.of_others {
            let off = to.abs_diff(Self::now());
            self.notes.set(
                "clock-set",
                format!("this machine's clock is {off} s from the lighthouse's: set it, or peers may refuse its handshakes"),
            );
            return;
        }
        match kernel::set(to) {
            Ok(()) => self.notes.clear("clock-set"),
            Err(e) => {
                self.notes
                    .set("clock-set", format!("the clock cannot be set: {e}"));
            }
        }
    }

    /// A lighthouse said over its pinned connection what time it is.
    ///
    /// # Errors
    /// When the floor cannot be stored; then the clock was not moved forward either.
    pub async fn vouch(&self, time: u64) -> anyhow::Result<()> {
        if !believable(time, self.built) {
            self.notes.set(
                "clock",
                format!(
                    "the lighthouse names a time that cannot be ({time} s after 1970): ignored"
                ),
            );
            return Ok(());
        }
        let floor = self.store.get().clock_floor;
        let system = Self::now();
        let decision = adjust(system, time, floor, self.stamped.load(Ordering::Relaxed));
        if let Adjust::Step(to) = decision {
            let leapt = self.leapt.load(Ordering::Relaxed);
            match alone(system, to, self.built, leapt) {
                Some(leapt) => self.leapt.store(leapt, Ordering::Relaxed),
                None if self.agreed(to).await => {}
                None => {
                    let days = (to - system) / 86_400;
                    self.notes.set("clock", format!("the lighthouse names a time {days} days ahead of this node's clock, and no time server agrees: ignored; is the lighthouse's clock right?"));
                    return Ok(());
                }
            }
        }
        let after = if let Adjust::Step(to) = decision {
            to
        } else {
            system
        };
        self.reserve(after).await?;
        match decision {
            Adjust::Step(to) => {
                tracing::info!(from = system, to, "the clock is set by the lighthouse");
                self.set(to);
                self.tick(false);
            }
            Adjust::Slow => self.tick(true),
            Adjust::Keep => self.tick(false),
        }
        self.vouched.store(true, Ordering::Relaxed);
        if system > time.saturating_add(WORTH_A_NOTE) && decision == Adjust::Slow {
            self.notes.set("clock", format!("the clock is {} s ahead of the lighthouse's and runs slower until that one has caught up", system - time));
        } else {
            self.notes.clear("clock");
        }
        Ok(())
    }

    /// Which time servers there are.
    pub fn ask_from_now_on(&self, servers: Vec<String>) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers;
    }

    /// Whether a time server names about the same time.
    async fn agreed(&self, time: u64) -> bool {
        let held = || self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = held().clone();
        let asked = tokio::time::timeout(ASKED, sntp::ask(&servers)).await;
        matches!(asked, Ok(Some(found)) if found.abs_diff(time) <= AGREE)
    }

    fn tick(&self, slow: bool) {
        if self.of_others {
            return;
        }
        if let Err(e) = kernel::tick(slow) {
            tracing::warn!("the clock's speed cannot be changed: {e}");
        }
    }

    /// Stores a floor beyond every stamp that may be sent soon.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn reserve(&self, now: u64) -> anyhow::Result<()> {
        let closing = self.closing.load(Ordering::Relaxed);
        if let Some(floor) = next_floor(now, self.store.get().clock_floor).filter(|_| !closing) {
            self.store
                .update(|d| d.clock_floor = d.clock_floor.max(floor))
                .await?;
        }
        Ok(())
    }

    /// From here on stamps are sent: the clock is never set back again.
    ///
    /// # Errors
    /// When the floor cannot be stored.
    pub async fn before_mesh(&self) -> anyhow::Result<()> {
        self.stamped.store(true, Ordering::Relaxed);
        self.reserve(Self::now()).await
    }

    /// Keeps the floor ahead while the mesh is up.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
            if let Err(e) = self.reserve(Self::now()).await {
                self.notes.set(
                    "floor",
                    format!("the clock's floor cannot be stored: {e:#}"),
                );
            } else {
                self.notes.clear("floor");
            }
        }
    }

    /// The agent ends in order: what was reserved beyond the last stamp is given back, so that
    /// reboots do not add up to a clock in the future.
    pub async fn stop(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let last = Self::now().saturating_add(5);
        if let Err(e) = self
            .store
            .update(|d| d.clock_floor = d.clock_floor.min(last))
            .await
        {
            tracing::warn!("the clock's floor cannot be stored: {e:#}");
        }
    }

    /// A time server's word: moves a clock that no lighthouse has vouched for, forward only, and
    /// never the stored floor.
    pub fn hint(&self, time: u64) {
        if believable(time, self.built)
            && !self.vouched.load(Ordering::Relaxed)
            && !self.stamped.load(Ordering::Relaxed)
        {
            self.lift(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_latest_of_build_seed_and_store_counts() {
        assert_eq!(floor(10, Some(20), 5), 20);
        assert_eq!(floor(10, None, 15), 15);
    }

    #[test]
    fn a_clock_ahead_is_set_back_only_while_nothing_was_stamped() {
        assert_eq!(adjust(5000, 1000, 900, false), Adjust::Step(1000));
        assert_eq!(adjust(5000, 1000, 900, true), Adjust::Slow);
        assert_eq!(adjust(5000, 1000, 1001, false), Adjust::Slow);
        assert_eq!(adjust(1000, 5000, 0, true), Adjust::Step(5000));
        assert_eq!(adjust(1000, 999, 0, true), Adjust::Keep);
    }

    #[test]
    fn a_time_that_cannot_be_is_not_believed_and_none_overflows() {
        assert!(believable(WRITTEN + HORIZON, 0));
        assert!(!believable(WRITTEN + HORIZON + 1, 0));
        assert!(believable(2_000_000_000 + HORIZON, 2_000_000_000));
        assert!(believable(u64::MAX, u64::MAX));
        for time in [0, u64::MAX - 130, u64::MAX] {
            assert!(time < 130 || !believable(time, 1_800_000_000));
            for other in [0, 1, u64::MAX - 1, u64::MAX] {
                adjust(time, other, other, true);
                next_floor(time, other);
            }
        }
    }

    #[test]
    fn a_lighthouse_alone_does_not_carry_the_clock_far_away() {
        let built = 1_800_000_000;
        let edge = built + ALONE;
        // A machine that lay in a drawer for years.
        assert_eq!(alone(built, edge, built, 0), Some(0));
        // An old image whose machine was off for some weeks; a clock that is set back.
        assert_eq!(alone(edge, edge + LEAP, built, 0), Some(LEAP));
        assert_eq!(alone(edge + 9, edge, built, 7), Some(7));
        assert_eq!(alone(built, edge + LEAP, built, 0), None);
        // Nor in small steps.
        let (mut clock, mut leapt) = (edge, 0);
        while let Some(all) = alone(clock, clock + 86_400, built, leapt) {
            (clock, leapt) = (clock + 86_400, all);
        }
        assert_eq!(clock, edge + LEAP);
    }

    proptest! {
        /// Over any lives with power cuts, each stamp is later than every stamp before it.
        #[test]
        fn stamps_never_go_back(lives in proptest::collection::vec((0u64..4000, 0u64..500, any::<bool>()), 1..12)) {
            let (mut stored, mut last, mut real) = (0u64, 0u64, 1_000_000u64);
            for (off, up, has_rtc) in lives {
                real += off;
                let mut clock = floor(0, None, stored).max(if has_rtc { real } else { 0 });
                if let Some(f) = next_floor(clock, stored) { stored = f; }
                for _ in 0..up {
                    prop_assert!(clock >= last, "{clock} after {last}");
                    prop_assert!(clock <= stored);
                    last = clock;
                    clock += 1;
                    real += 1;
                    if let Adjust::Step(to) = adjust(clock, real, stored, true) { clock = to; }
                    if let Some(f) = next_floor(clock, stored) { stored = f; }
                }
            }
        }
    }
}
