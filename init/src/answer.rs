//! What the agent asks for, done or refused.

use std::convert::Infallible;

use holdfast_core::ipc::{BootInfo, Devices, InitReply, InitRequest};
use holdfast_core::layout::Role;
use holdfast_core::slots::{BootId, Code, Record, Slot, Stage, State, Target};
use holdfast_core::state::StateDoc;
use holdfast_core::status::{BootStatus, SlotName, SlotStatus};

use crate::record::RecordStore;
use crate::services::AGENT;
use crate::state::{Loaded, StateStore};
use crate::system::{Ending, System};

/// How often a rollback's target is tried.
const ROLLBACK_TRIES: u8 = 2;

impl System {
    /// Answers one request.
    pub(crate) fn handle(&mut self, request: InitRequest) -> InitReply {
        let now = self.clock.now();
        let done = match request {
            InitRequest::Heartbeat => {
                self.vigil.heartbeat(now);
                self.reached(Stage::AGENT);
                Ok(())
            }
            InitRequest::Reached { stage } => {
                if let Some(stage) = Stage::from_id(&stage) {
                    self.reached(stage);
                }
                Ok(())
            }
            InitRequest::Boot => return InitReply::Boot(Box::new(self.boot_info())),
            InitRequest::Services => return InitReply::Services(self.services.states()),
            InitRequest::StartService { service } => self.services.start(service, now),
            InitRequest::StopService { name } => self.services.stop(&name, now),
            InitRequest::RestartAgent => {
                self.services.kill(AGENT);
                Ok(())
            }
            InitRequest::Reboot { reason, rescue } => self.reboot(&reason, rescue),
            InitRequest::PowerOff { reason } => {
                self.end_in(Ending {
                    reason,
                    power_off: true,
                });
                Ok(())
            }
            InitRequest::Retire => self.retire(),
            InitRequest::FailTrial { reason } => self.trial_failed(&reason),
            InitRequest::Commit => self.commit(),
            InitRequest::BeginWrite { slot } => {
                self.on_slot(slot, |record, id, slot| record.begin_write(id, slot))
            }
            InitRequest::Install {
                slot,
                digest,
                generation,
                tries,
            } => self.on_slot(slot, |record, id, slot| {
                record.install(id, slot, digest.0, generation, tries)
            }),
            InitRequest::Rollback => self
                .changed(|record, id| record.rollback(id, ROLLBACK_TRIES))
                .map(drop),
        };
        match done {
            Ok(()) => InitReply::Ok,
            Err(why) => InitReply::Refused(why),
        }
    }

    fn reached(&mut self, stage: Stage) {
        self.news("note the stage", |record, id| record.reached(id, stage));
    }

    fn store(&mut self) -> Result<&mut RecordStore, String> {
        self.store
            .as_mut()
            .ok_or_else(|| "this system was started without a disk of its own".to_owned())
    }

    fn changed<T, E>(
        &mut self,
        verb: impl FnOnce(&mut Record, &holdfast_core::slots::BootId) -> Result<T, E>,
    ) -> Result<T, String>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        self.store()?
            .change(verb)
            .map_err(|error| format!("{error:#}"))
    }

    fn on_slot<E>(
        &mut self,
        slot: SlotName,
        verb: impl FnOnce(&mut Record, &BootId, Slot) -> Result<(), E>,
    ) -> Result<(), String>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let slot = match slot {
            SlotName::A => Slot::A,
            SlotName::B => Slot::B,
            SlotName::Rescue => return Err("the rescue system is not a slot of the record".into()),
        };
        self.changed(|record, id| verb(record, id, slot))
    }

    fn commit(&mut self) -> Result<(), String> {
        let store = self.store()?;
        let digest = match store.record().running() {
            Some(Target::Slot(slot)) => store.record().slot(slot).digest,
            _ => return Err("no slot is running".into()),
        };
        let newly = self.changed(|record, id| record.commit(id, &digest))?;
        self.vigil.committed();
        if newly {
            crate::kmsg::notice("the trial is committed");
        }
        Ok(())
    }

    fn trial_failed(&mut self, reason: &str) -> Result<(), String> {
        self.changed(|record, id| record.fail_trial(id, reason))?;
        self.ending = Some(Ending::reboot(format!("the trial failed: {reason}")));
        Ok(())
    }

    /// Only an installer that has done its work, and whose own node never joined, is spent.
    fn retire(&mut self) -> Result<(), String> {
        let disk = self.facts.as_ref().and_then(|f| f.disk.as_ref());
        let partition = disk
            .and_then(|disk| disk.partition(Role::State))
            .ok_or("no partition hf-state")?;
        let (_, loaded) = StateStore::open(&partition.node).map_err(|e| format!("{e:#}"))?;
        match loaded {
            Loaded::Known(doc) if is_spent(&doc) => {}
            Loaded::Known(_) => return Err("this disk is no installer that is spent".into()),
            _ => return Err("hf-state cannot be read".into()),
        }
        self.changed(|record, id| record.retire(id)).map(drop)
    }

    fn reboot(&mut self, reason: &str, rescue: bool) -> Result<(), String> {
        let running = self.store.as_ref().and_then(|s| s.record().running());
        if rescue {
            self.changed(|record, _| {
                record.request_rescue();
                Ok::<_, Infallible>(())
            })?;
        } else if running == Some(Target::Rescue) {
            // Whoever asks does not want to wait for the hour.
            self.changed(|record, _| {
                record.leave_rescue();
                Ok::<_, Infallible>(())
            })?;
        }
        self.end(reason);
        Ok(())
    }

    fn boot_info(&self) -> BootInfo {
        let facts = self.facts.as_ref();
        let record = self.store.as_ref().map(RecordStore::record);
        let image = facts.and_then(|f| f.image.as_ref());
        let running = record.and_then(Record::running);
        BootInfo {
            boot: BootStatus {
                boot_id: facts.and_then(|f| f.line.boot.clone()).unwrap_or_default(),
                slot: running.map_or(SlotName::Rescue, slot_name),
                version: image.map(|i| i.version.clone()).unwrap_or_default(),
                generation: image.map_or(0, |i| i.generation),
                on_trial: self.vigil.trial_left(self.clock.now()).is_some(),
                reason: record.map_or_else(|| "started without a disk".to_owned(), boot_reason),
                slots: record.map(slots).unwrap_or_default(),
            },
            devices: facts.and_then(|f| f.disk.as_ref()).map_or_else(
                || Devices {
                    disk: String::new(),
                    partitions: Default::default(),
                },
                crate::disk::Disk::devices,
            ),
            var_on_disk: facts.is_some_and(|f| f.var_on_disk),
            root_mounted: facts.is_some_and(|f| f.root_mounted),
            trial_left: self
                .vigil
                .trial_left(self.clock.now())
                .map(|left| left.as_secs()),
            notes: facts.map(|f| f.notes.clone()).unwrap_or_default(),
            loading: self.loading(),
        }
    }
}

fn is_spent(doc: &StateDoc) -> bool {
    doc.admission.is_none() && doc.installed.iter().any(|i| i.done && i.retire)
}

fn slot_name(target: Target) -> SlotName {
    match target {
        Target::Slot(Slot::A) => SlotName::A,
        Target::Slot(Slot::B) => SlotName::B,
        Target::Rescue => SlotName::Rescue,
    }
}

fn slots(record: &Record) -> Vec<SlotStatus> {
    let status = |slot: Slot| {
        let info = record.slot(slot);
        SlotStatus {
            slot: slot_name(Target::Slot(slot)),
            state: info.state.name().to_owned(),
            generation: info.generation,
            tries_left: info.tries_left,
            reason: info.reason.to_string(),
            probation: info.probation,
        }
    };
    Slot::BOTH.map(status).to_vec()
}

/// Why the machine runs what it runs: where the other slot was left as bad, at the boot before or
/// while it held a newer system than this one, that slot's reason is the answer.
fn boot_reason(record: &Record) -> String {
    if let Some(Target::Slot(now)) = record.running() {
        let other = now.other();
        let left = record.slot(other);
        let was_before = record.previous() == Some(Target::Slot(other));
        if left.state == State::Bad && (was_before || left.generation > record.slot(now).generation)
        {
            return format!("went back from slot {other}: {}", left.reason);
        }
    }
    let last = record.last_reason();
    if last.code == Code::OTHER_GOOD {
        let left = record.preferred();
        return format!("{last}: slot {left} {}", record.slot(left).reason);
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::slots::Excluded;

    #[test]
    fn a_node_that_went_back_says_why() {
        let mut record = Record::factory([1; 32], 1);
        record.choose_start([1; 16], Excluded::default()).unwrap();
        record.begin_write(&[1; 16], Slot::B).unwrap();
        record.install(&[1; 16], Slot::B, [2; 32], 2, 1).unwrap();
        record.choose_start([2; 16], Excluded::default()).unwrap();
        assert_eq!(boot_reason(&record), "on trial");
        record
            .fail_trial(&[2; 16], "no handshake with the lighthouse")
            .unwrap();
        record.choose_start([3; 16], Excluded::default()).unwrap();
        let reason = boot_reason(&record);
        assert!(
            reason.starts_with("went back from slot b") && reason.contains("no handshake"),
            "{reason}"
        );
        // one more start does not hide it, the next upgrade does
        record.choose_start([4; 16], Excluded::default()).unwrap();
        assert_eq!(boot_reason(&record), reason);
        assert_eq!(slots(&record)[1].state, "bad");
        record.begin_write(&[4; 16], Slot::B).unwrap();
        assert_eq!(boot_reason(&record), "preferred slot");
    }

    #[test]
    fn only_an_installer_that_is_done_is_spent() {
        let installed = |done, retire| holdfast_core::state::Installed {
            disk: "x".into(),
            name: "x".into(),
            done,
            retire,
            other: Default::default(),
        };
        let mut doc = StateDoc::default();
        assert!(!is_spent(&doc));
        doc.installed = vec![installed(false, true), installed(true, false)];
        assert!(!is_spent(&doc));
        doc.installed.push(installed(true, true));
        assert!(is_spent(&doc));
    }

    #[test]
    fn a_slot_that_does_not_stay_up_is_named() {
        let mut record = Record::factory([1; 32], 1);
        record.choose_start([1; 16], Excluded::default()).unwrap();
        record.begin_write(&[1; 16], Slot::B).unwrap();
        record.install(&[1; 16], Slot::B, [2; 32], 2, 1).unwrap();
        record.choose_start([2; 16], Excluded::default()).unwrap();
        record.commit(&[2; 16], &[2; 32]).unwrap();
        for id in 3..7 {
            record.choose_start([id; 16], Excluded::default()).unwrap();
        }
        assert_eq!(
            boot_reason(&record),
            "the other good slot: slot b did not stay up in 3 starts: stage kernel: init did not start, or found no disk"
        );
    }
}
