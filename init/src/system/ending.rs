//! How a boot ends: what the vigil decides is carried out, the record learns it, services stop.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use holdfast_core::ipc::{InitReply, InitRequest};
use holdfast_core::slots::{BootId, Record, VerbError};
use nix::sys::signalfd::SignalFd;

use super::System;
use crate::kmsg;
use crate::services::{AGENT, LOG};
use crate::vigil::Act;

/// How long services and agent may take to stop before everything is killed.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// Why and how the system ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// In words.
    pub reason: String,
    /// The machine is switched off and not started again.
    pub power_off: bool,
}

impl Ending {
    /// In a reboot.
    pub fn reboot(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            power_off: false,
        }
    }
}

impl System {
    pub(super) fn act(&mut self, act: Act) {
        match act {
            Act::FailTrial(reason) => {
                self.fail_trial(&reason);
                self.ending = Some(Ending::reboot(format!("the trial failed: {reason}")));
            }
            Act::GiveUp(reason) => {
                // Only where another system is sure to be started in its place: a reboot that nothing
                // records would come back to this one, or to none.
                let given_up = self
                    .store
                    .as_mut()
                    .map(|store| store.change(|record, id| record.give_up(id, &reason)));
                match given_up {
                    Some(Ok(())) => {
                        kmsg::error(format_args!("this system gives itself up: {reason}"));
                        self.ending
                            .get_or_insert(Ending::reboot(format!("gave itself up: {reason}")));
                    }
                    Some(Err(error)) => kmsg::warning(format_args!("it runs on: {error:#}")),
                    None => {}
                }
            }
            Act::KillAgent => {
                kmsg::warning("the agent is silent, starting it again");
                self.services.kill(AGENT);
            }
            Act::Reboot(reason) => self.ending = Some(Ending::reboot(reason)),
            Act::Quiet => {
                self.news("count this start as good", |record, id| record.quiet(id));
                kmsg::notice("this start counts as good");
            }
            Act::Settled => self.news("end the probation", |record, id| record.settled(id)),
            Act::LeaveRescue => {
                self.record_change("leave rescue", |record, _| {
                    record.leave_rescue();
                    Ok::<_, Infallible>(())
                });
                let reason = "an hour in rescue: trying the slots again";
                self.ending = Some(Ending::reboot(reason));
            }
        }
    }

    /// Asked to stop by someone who may: this start was no failure.
    pub(crate) fn end(&mut self, reason: &str) {
        self.end_in(Ending::reboot(reason));
    }

    /// As [`Self::end`], in this way.
    pub(crate) fn end_in(&mut self, ending: Ending) {
        self.news("clear the starts", |record, id| record.stopped(id));
        self.ending.get_or_insert(ending);
    }

    pub(crate) fn fail_trial(&mut self, reason: &str) {
        kmsg::error(format_args!("the trial failed: {reason}"));
        self.record_change("record the failed trial", |record, id| {
            record.fail_trial(id, reason)
        });
    }

    /// As [`crate::record::RecordStore::news`], with errors told.
    pub(crate) fn news(
        &mut self,
        what: &str,
        verb: impl Fn(&mut Record, &BootId) -> Result<bool, VerbError>,
    ) {
        if let Some(store) = &mut self.store
            && let Err(error) = store.news(verb)
        {
            kmsg::error(format_args!("{what}: {error:#}"));
        }
    }

    fn record_change<T, E>(
        &mut self,
        what: &str,
        verb: impl FnOnce(&mut Record, &BootId) -> Result<T, E>,
    ) where
        E: std::error::Error + Send + Sync + 'static,
    {
        if let Some(store) = &mut self.store
            && let Err(error) = store.change(verb)
        {
            kmsg::error(format_args!("{what}: {error:#}"));
        }
    }

    /// Services first, the agent after them (it tells the lighthouse), the log last of all.
    pub(super) fn stop_services(&mut self, signals: &SignalFd) -> Result<()> {
        // Nothing waits for modules any more.
        self.background = None;
        for keep in [&[AGENT, LOG][..], &[LOG][..]] {
            let began = self.clock.now();
            self.services.stop_all(keep, began);
            while self.services.any_running(keep)
                && self.clock.now().saturating_sub(began) < STOP_LIMIT
            {
                self.dog.feed();
                self.wait(signals)?;
                self.take_signals(signals);
                self.reap();
                if let Some(mut server) = self.server.take() {
                    server.serve(|request| match request {
                        InitRequest::Heartbeat => InitReply::Ok,
                        InitRequest::Boot | InitRequest::Services => self.handle(request),
                        _ => InitReply::Refused("the node is stopping".into()),
                    });
                    self.server = Some(server);
                }
                self.services.tick(self.clock.now(), false);
            }
        }
        Ok(())
    }
}
