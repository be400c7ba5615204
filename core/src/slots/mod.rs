//! The slot record and its transitions: which system a node starts, and when it goes back.
//!
//! One value, [`Record`], shared by loader, init and CLI. Its verbs change it in memory; whoever
//! called them writes it with [`Copies`] and flushes before acting on it.
//!
//! ```text
//!            begin_write        install            commit
//!   any ---------------> empty ---------> trial ------------> good
//!   (not running, the                     |  ^                  |
//!    other one good)      tries used up,  |  | try_slot,        | mark_bad (never the
//!                         fail_trial,     v  | rollback         v  last good slot)
//!                         does not verify bad <-----------------+
//! ```
//!
//! - The loader counts every start before it happens ([`Record::choose_start`]): a trial costs a
//!   try; a good slot collects `starts` until the system has been up for a while
//!   ([`Record::quiet`]). Three uncleared starts lead to the other good slot, then to rescue.
//! - A slot is on probation after its commit: for an hour of running ([`Record::settled`]) the usual
//!   quiet minutes clear nothing, so that a system that dies slowly leads to the other good slot too.
//! - What runs on trial says how far it came ([`Record::reached`]): the reason why it was left names
//!   the stage.
//! - Rescue gives every good slot one more start after an hour ([`Record::leave_rescue`]), or the
//!   loader does after three rescues that did not stay up.
//! - The loader leaves the hardware watchdog alone where a system found nobody to feed it, and in the
//!   last of rescue's starts ([`Record::arms_watchdog`]): it must not be what nothing comes up under.
//! - If no copy can be read, [`Record::rebuild`] puts every slot whose header verifies on trial
//!   with one try.
//! - There is always a good slot whose content is whole, once there was one: a verb that would
//!   break this fails with [`VerbError`].

mod codec;
mod copies;
#[cfg(test)]
mod model;
mod reason;
mod stage;
mod start;
#[cfg(test)]
mod tests;
mod verbs;

pub use codec::RecordError;
pub use copies::{Copies, CopyState, fresh_partition};
pub use reason::{Code, Reason};
pub use stage::Stage;
pub use start::{Excluded, Start};
pub use verbs::VerbError;

use crate::bytes::{BLOCK, Block};
use core::fmt;

/// How many starts a good slot may leave uncleared.
pub const STARTS_MAX: u8 = 3;
/// How many starts rescue may leave uncleared before the slots get another try.
pub const RESCUE_STARTS_MAX: u8 = 3;
/// After how many seconds of running init calls [`Record::quiet`].
pub const QUIET_SECONDS: u64 = 180;
/// After how many seconds of running init calls [`Record::settled`].
pub const SETTLED_SECONDS: u64 = 3600;
/// After how many seconds in rescue init calls [`Record::leave_rescue`] and reboots.
pub const RESCUE_SECONDS: u64 = 3600;

/// The random id of one boot: written by the loader, passed to the kernel, looked for by init.
pub type BootId = [u8; 16];

/// One of the two places for a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both slots.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other slot.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// `a` or `b`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The slot called `a` or `b`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|s| s.name() == name)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A slot.
    Slot(Slot),
    /// The rescue system.
    Rescue,
}

impl Target {
    /// `a`, `b` or `rescue`: the value of `holdfast.slot`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slot(slot) => slot.name(),
            Self::Rescue => "rescue",
        }
    }

    /// The target called `a`, `b` or `rescue`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "rescue" {
            Some(Self::Rescue)
        } else {
            Slot::from_name(name).map(Self::Slot)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(slot) => write!(f, "slot {slot}"),
            Self::Rescue => f.write_str("rescue"),
        }
    }
}

/// What is known of a slot's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing, or half of something.
    Empty,
    /// Whole, not proven yet.
    Trial,
    /// Proven.
    Good,
    /// Whole perhaps, but failed.
    Bad,
}

impl State {
    /// `empty`, `trial`, `good` or `bad`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Trial => "trial",
            Self::Good => "good",
            Self::Bad => "bad",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the record says of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotInfo {
    /// SHA-256 of the slot's header block; zero when empty.
    pub digest: [u8; 32],
    /// The release's generation.
    pub generation: u64,
    /// Its state.
    pub state: State,
    /// How often a trial may still be started.
    pub tries_left: u8,
    /// Starts since the last one that stayed up.
    pub starts: u8,
    /// How far the last start came, as far as it said.
    pub stage: Stage,
    /// Committed lately: minutes of running do not clear its starts, only [`Record::settled`] or an orderly
    /// end do.
    pub probation: bool,
    /// Why it last changed.
    pub reason: Reason,
}

impl SlotInfo {
    const EMPTY: Self = Self {
        digest: [0; 32],
        generation: 0,
        state: State::Empty,
        tries_left: 0,
        starts: 0,
        stage: Stage::KERNEL,
        probation: false,
        reason: Reason::NONE,
    };

    const fn is_good(&self) -> bool {
        matches!(self.state, State::Good)
    }
}

/// The slot record.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    seq: u64,
    boots: u64,
    boot_id: BootId,
    preferred: Slot,
    last: Option<Target>,
    previous: Option<Target>,
    rescue_requested: bool,
    watchdog_unfed: bool,
    rescue_starts: u8,
    last_reason: Reason,
    slots: [SlotInfo; 2],
    /// The block as read: what a newer version added is written back unchanged.
    raw: Block,
}

impl Record {
    fn blank() -> Self {
        Self {
            seq: 0,
            boots: 0,
            boot_id: [0; 16],
            preferred: Slot::A,
            last: None,
            previous: None,
            rescue_requested: false,
            watchdog_unfed: false,
            rescue_starts: 0,
            last_reason: Reason::NONE,
            slots: [SlotInfo::EMPTY; 2],
            raw: [0; BLOCK],
        }
    }

    /// The record of a freshly flashed disk: slot A is good, slot B empty.
    #[must_use]
    pub fn factory(digest: [u8; 32], generation: u64) -> Self {
        let mut record = Self::blank();
        record.slots[0] = SlotInfo {
            digest,
            generation,
            state: State::Good,
            ..SlotInfo::EMPTY
        };
        record.give_reason(Slot::A, Code::FACTORY, "");
        record
    }

    /// Counts writes.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Counts starts.
    #[must_use]
    pub const fn boots(&self) -> u64 {
        self.boots
    }

    /// The id of the last start; init works on the disk whose record holds the one it was given.
    #[must_use]
    pub const fn boot_id(&self) -> &BootId {
        &self.boot_id
    }

    /// The slot that is started when nothing is on trial.
    #[must_use]
    pub const fn preferred(&self) -> Slot {
        self.preferred
    }

    /// What was started last: what runs, for whoever runs.
    #[must_use]
    pub const fn running(&self) -> Option<Target> {
        self.last
    }

    /// What the boot before the last started.
    #[must_use]
    pub const fn previous(&self) -> Option<Target> {
        self.previous
    }

    /// Why the last start chose what it chose.
    #[must_use]
    pub const fn last_reason(&self) -> &Reason {
        &self.last_reason
    }

    /// Whether the next start is to be rescue.
    #[must_use]
    pub const fn rescue_requested(&self) -> bool {
        self.rescue_requested
    }

    /// Whether a system found nobody to feed the watchdog that the loader armed.
    #[must_use]
    pub const fn watchdog_unfed(&self) -> bool {
        self.watchdog_unfed
    }

    /// Starts of rescue since one stayed up.
    #[must_use]
    pub const fn rescue_starts(&self) -> u8 {
        self.rescue_starts
    }

    /// What is known of `slot`.
    #[must_use]
    pub const fn slot(&self, slot: Slot) -> &SlotInfo {
        &self.slots[slot.index()]
    }

    const fn slot_mut(&mut self, slot: Slot) -> &mut SlotInfo {
        &mut self.slots[slot.index()]
    }

    fn give_reason(&mut self, slot: Slot, code: Code, detail: &str) {
        let at_boot = self.boots;
        self.slot_mut(slot).reason = Reason {
            code,
            at_boot,
            detail: crate::text::Text::new(detail),
        };
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("seq", &self.seq)
            .field("boots", &self.boots)
            .field("preferred", &self.preferred)
            .field("last", &self.last)
            .field("rescue_requested", &self.rescue_requested)
            .field("watchdog_unfed", &self.watchdog_unfed)
            .field("rescue_starts", &self.rescue_starts)
            .field("last_reason", &self.last_reason)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}
