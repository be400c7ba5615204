//! What the running system and the operator change.

use super::{BootId, Code, Record, STARTS_MAX, Slot, SlotInfo, Stage, State, Target};

/// Why a verb is refused; the record is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerbError {
    /// The record was written by another boot than the caller's.
    #[error(
        "the record belongs to another boot: this is not the disk this system was started from"
    )]
    OtherBoot,
    /// The slot is the one that runs.
    #[error("slot {0} is running")]
    Running(Slot),
    /// The slot holds the last good system.
    #[error("slot {0} holds the last good system")]
    LastGood(Slot),
    /// No proven system would be left to go back to.
    #[error("slot {0} is not good: there would be nothing to go back to")]
    OtherNotGood(Slot),
    /// The slot is not in a state that allows this.
    #[error("slot {slot} is {state}, not {needed}")]
    State {
        /// The slot.
        slot: Slot,
        /// Its state.
        state: State,
        /// What it would have to be.
        needed: &'static str,
    },
    /// The digest is not the one on trial.
    #[error("slot {0} holds another image than the one named")]
    Digest(Slot),
    /// Rescue runs, or nothing does.
    #[error("no slot is running")]
    NoSlotRuns,
    /// A trial needs at least one try.
    #[error("a trial needs at least one try")]
    NoTries,
}

impl Record {
    fn running_slot(&self) -> Result<Slot, VerbError> {
        match self.last {
            Some(Target::Slot(slot)) => Ok(slot),
            Some(Target::Rescue) | None => Err(VerbError::NoSlotRuns),
        }
    }

    /// Which slot runs and which may be written is known from the record of this boot only: an
    /// older one (the newer copy rotted) names what ran before.
    fn of_this_boot(&self, boot_id: &BootId) -> Result<(), VerbError> {
        if &self.boot_id == boot_id {
            Ok(())
        } else {
            Err(VerbError::OtherBoot)
        }
    }

    /// `slot` may be changed: it does not run, and what would be gone back to is proven.
    /// Where nothing is good (a rebuilt record in rescue) there is nothing to protect.
    fn replaceable(&self, slot: Slot) -> Result<(), VerbError> {
        if self.last == Some(Target::Slot(slot)) {
            return Err(VerbError::Running(slot));
        }
        if self.slot(slot.other()).is_good() {
            return Ok(());
        }
        if self.slot(slot).is_good() {
            return Err(VerbError::LastGood(slot));
        }
        // The running trial is all there is: it must not lose what it would go back to.
        if self.last == Some(Target::Slot(slot.other())) {
            return Err(VerbError::OtherNotGood(slot.other()));
        }
        Ok(())
    }

    /// Before the first byte of `slot` is overwritten: write and flush the record, then clear
    /// the slot's header block, write the payloads, write the header last, call [`Self::install`].
    ///
    /// # Errors
    /// [`VerbError`] when the slot runs or is needed to go back to, or the record is another boot's.
    pub fn begin_write(&mut self, boot_id: &BootId, slot: Slot) -> Result<(), VerbError> {
        self.of_this_boot(boot_id)?;
        self.replaceable(slot)?;
        *self.slot_mut(slot) = SlotInfo::EMPTY;
        self.give_reason(slot, Code::WRITING, "");
        Ok(())
    }

    /// Whether a slot was begun to be written in this boot and is not whole yet.
    #[must_use]
    pub fn is_being_written(&self) -> bool {
        self.slots.iter().any(|slot| {
            slot.state == State::Empty
                && slot.reason.code == Code::WRITING
                && slot.reason.at_boot == self.boots
        })
    }

    /// After the header was written, flushed and read back: puts `slot` on trial.
    ///
    /// # Errors
    /// [`VerbError`] unless [`Self::begin_write`] came before, or when there are no tries.
    pub fn install(
        &mut self,
        boot_id: &BootId,
        slot: Slot,
        digest: [u8; 32],
        generation: u64,
        tries: u8,
    ) -> Result<(), VerbError> {
        self.of_this_boot(boot_id)?;
        self.replaceable(slot)?;
        let state = self.slot(slot).state;
        if state != State::Empty {
            return Err(VerbError::State {
                slot,
                state,
                needed: "empty",
            });
        }
        if tries == 0 {
            return Err(VerbError::NoTries);
        }
        *self.slot_mut(slot) = SlotInfo {
            digest,
            generation,
            state: State::Trial,
            tries_left: tries,
            ..SlotInfo::EMPTY
        };
        self.give_reason(slot, Code::INSTALLED, "");
        Ok(())
    }

    /// The running trial is proven: it becomes good and preferred. `false`: it already was good.
    ///
    /// # Errors
    /// [`VerbError`] when the running slot is another, or another image.
    pub fn commit(&mut self, boot_id: &BootId, digest: &[u8; 32]) -> Result<bool, VerbError> {
        self.of_this_boot(boot_id)?;
        let slot = self.running_slot()?;
        let info = self.slot_mut(slot);
        if &info.digest != digest {
            return Err(VerbError::Digest(slot));
        }
        match info.state {
            State::Good => Ok(false),
            State::Trial => {
                info.state = State::Good;
                info.tries_left = 0;
                info.starts = 0;
                info.stage = Stage::UP;
                info.probation = true;
                self.preferred = slot;
                self.give_reason(slot, Code::COMMITTED, "");
                Ok(true)
            }
            state => Err(VerbError::State {
                slot,
                state,
                needed: "trial",
            }),
        }
    }

    /// The running trial failed; the next start is the good slot.
    ///
    /// # Errors
    /// [`VerbError`] when what runs is not on trial.
    pub fn fail_trial(&mut self, boot_id: &BootId, detail: &str) -> Result<(), VerbError> {
        self.of_this_boot(boot_id)?;
        let slot = self.running_slot()?;
        let info = self.slot_mut(slot);
        if info.state != State::Trial {
            return Err(VerbError::State {
                slot,
                state: info.state,
                needed: "trial",
            });
        }
        info.state = State::Bad;
        info.tries_left = 0;
        self.give_reason(slot, Code::GATE_FAILED, detail);
        Ok(())
    }

    /// The running system came to `stage`. Kept for what may have to say later where it ended: a trial,
    /// and a good slot whose starts pile up. `true`: something changed.
    ///
    /// # Errors
    /// [`VerbError::OtherBoot`].
    pub fn reached(&mut self, boot_id: &BootId, stage: Stage) -> Result<bool, VerbError> {
        self.of_this_boot(boot_id)?;
        let Some(Target::Slot(slot)) = self.last else {
            return Ok(false);
        };
        let info = self.slot_mut(slot);
        let matters = match info.state {
            State::Trial => true,
            State::Good => info.starts > 1 || info.probation,
            State::Empty | State::Bad => false,
        };
        if !matters || info.stage >= stage {
            return Ok(false);
        }
        info.stage = stage;
        Ok(true)
    }

    /// The running system has been up for [`super::QUIET_SECONDS`]: its starts are cleared, unless it is
    /// on probation. A good slot that stands in for one that does not stay up becomes preferred. A
    /// trial's tries are not given back. `true`: something changed.
    ///
    /// # Errors
    /// [`VerbError::OtherBoot`].
    pub fn quiet(&mut self, boot_id: &BootId) -> Result<bool, VerbError> {
        match self.running_slot() {
            // Without another good one there is nothing to go back to.
            Ok(slot)
                if self.slot(slot).is_good()
                    && self.slot(slot).probation
                    && self.slot(slot.other()).is_good() =>
            {
                self.reached(boot_id, Stage::UP)
            }
            _ => self.stopped(boot_id),
        }
    }

    /// The running system has been up for [`super::SETTLED_SECONDS`]: its probation ends, and its starts
    /// are cleared. `true`: something changed.
    ///
    /// # Errors
    /// [`VerbError::OtherBoot`].
    pub fn settled(&mut self, boot_id: &BootId) -> Result<bool, VerbError> {
        self.of_this_boot(boot_id)?;
        let Ok(slot) = self.running_slot() else {
            return Ok(false);
        };
        let info = self.slot_mut(slot);
        if !info.is_good() || !core::mem::take(&mut info.probation) {
            return Ok(false);
        }
        self.stopped(boot_id)?;
        Ok(true)
    }

    /// The running system stops because it was asked to, or lasted: its starts are cleared.
    /// `true`: something changed.
    ///
    /// # Errors
    /// [`VerbError::OtherBoot`].
    pub fn stopped(&mut self, boot_id: &BootId) -> Result<bool, VerbError> {
        self.of_this_boot(boot_id)?;
        let before = (self.slots, self.preferred, self.rescue_starts);
        match self.last {
            Some(Target::Rescue) => self.rescue_starts = 0,
            // What gave itself up does not take it back by ending in order.
            Some(Target::Slot(slot)) if self.slot(slot).reason.code == Code::GAVE_UP => {}
            Some(Target::Slot(slot)) if self.slot(slot).is_good() => {
                self.slot_mut(slot).starts = 0;
                // Rescue did its work, whatever it was.
                self.rescue_starts = 0;
                let preferred = self.slot(self.preferred);
                if !preferred.is_good() || preferred.starts >= STARTS_MAX {
                    self.preferred = slot;
                }
                if self.slot(slot).reason.code == Code::TRIED_AGAIN {
                    self.give_reason(slot, Code::COMMITTED, "stayed up again");
                }
            }
            Some(Target::Slot(_)) | None => {}
        }
        Ok(before != (self.slots, self.preferred, self.rescue_starts))
    }

    /// The running, good system finds that it cannot be relied on: the next start is the other good
    /// slot's. It stays good: what is wrong may be the disk's mood, and after rescue it has its turn again.
    ///
    /// # Errors
    /// [`VerbError`] when what runs is no good slot, or the other one is not good: then there is nothing
    /// better, and workloads run on.
    pub fn give_up(&mut self, boot_id: &BootId, detail: &str) -> Result<(), VerbError> {
        self.of_this_boot(boot_id)?;
        let slot = self.running_slot()?;
        let other = self.slot(slot.other());
        if !other.is_good() || other.starts >= STARTS_MAX {
            return Err(VerbError::OtherNotGood(slot.other()));
        }
        let info = self.slot_mut(slot);
        if !info.is_good() {
            return Err(VerbError::State {
                slot,
                state: info.state,
                needed: "good",
            });
        }
        info.starts = STARTS_MAX;
        self.give_reason(slot, Code::GAVE_UP, detail);
        Ok(())
    }

    /// Puts `slot`, whole and not running, on trial again.
    ///
    /// # Errors
    /// [`VerbError`] when it is empty or runs, or the other one is not good.
    pub fn try_slot(&mut self, boot_id: &BootId, slot: Slot, tries: u8) -> Result<(), VerbError> {
        self.of_this_boot(boot_id)?;
        if self.last == Some(Target::Slot(slot)) {
            return Err(VerbError::Running(slot));
        }
        if !self.slot(slot.other()).is_good() {
            return Err(VerbError::OtherNotGood(slot.other()));
        }
        if tries == 0 {
            return Err(VerbError::NoTries);
        }
        let info = self.slot_mut(slot);
        if info.state == State::Empty || info.digest == [0; 32] {
            return Err(VerbError::State {
                slot,
                state: info.state,
                needed: "good or bad",
            });
        }
        info.state = State::Trial;
        info.tries_left = tries;
        info.starts = 0;
        self.give_reason(slot, Code::RETRIED, "");
        Ok(())
    }

    /// Goes back to the other slot: a trial like any other.
    ///
    /// # Errors
    /// As [`Self::try_slot`], and when no slot runs.
    pub fn rollback(&mut self, boot_id: &BootId, tries: u8) -> Result<Slot, VerbError> {
        let slot = self.running_slot()?.other();
        self.try_slot(boot_id, slot, tries)?;
        Ok(slot)
    }

    /// Never starts `slot` again until it is written anew or tried on request.
    ///
    /// # Errors
    /// [`VerbError::LastGood`], [`VerbError::OtherBoot`].
    pub fn mark_bad(
        &mut self,
        boot_id: &BootId,
        slot: Slot,
        detail: &str,
    ) -> Result<(), VerbError> {
        self.of_this_boot(boot_id)?;
        let info = self.slot(slot);
        if info.is_good() && !self.slot(slot.other()).is_good() {
            return Err(VerbError::LastGood(slot));
        }
        if info.state == State::Empty {
            return Err(VerbError::State {
                slot,
                state: State::Empty,
                needed: "trial or good",
            });
        }
        let info = self.slot_mut(slot);
        info.state = State::Bad;
        info.tries_left = 0;
        self.give_reason(slot, Code::MARKED_BAD, detail);
        if slot == self.preferred && self.slot(slot.other()).is_good() {
            self.preferred = slot.other();
        }
        Ok(())
    }

    /// The disk of an installer that has done its work: both slots become empty, and nothing is
    /// asked for. The one verb that leaves no good system: the one that was installed elsewhere
    /// takes its place. Clear the header blocks afterwards, rescue's too. `false`: it was so.
    ///
    /// # Errors
    /// [`VerbError::OtherBoot`].
    pub fn retire(&mut self, boot_id: &BootId) -> Result<bool, VerbError> {
        self.of_this_boot(boot_id)?;
        let before = (self.slots, self.rescue_requested);
        for slot in Slot::BOTH {
            if self.slot(slot).reason.code != Code::RETIRED || self.slot(slot).state != State::Empty
            {
                *self.slot_mut(slot) = SlotInfo::EMPTY;
                self.give_reason(slot, Code::RETIRED, "");
            }
        }
        self.rescue_requested = false;
        Ok(before != (self.slots, self.rescue_requested))
    }

    /// Notes whether the watchdog that the loader armed has nobody to feed it. `true`: that is news.
    ///
    /// # Errors
    /// [`VerbError::OtherBoot`].
    pub fn note_watchdog(&mut self, boot_id: &BootId, unfed: bool) -> Result<bool, VerbError> {
        self.of_this_boot(boot_id)?;
        Ok(core::mem::replace(&mut self.watchdog_unfed, unfed) != unfed)
    }

    /// Starts rescue next, once.
    pub fn request_rescue(&mut self) {
        self.rescue_requested = true;
    }
}
