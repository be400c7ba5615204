//! Tasks: what a call starts and Proxmox ends later. One ends after a few looks at it.

use super::state::{NODE, Reply, State};
use serde_json::json;

type Effect = Box<dyn FnOnce(&mut State) -> Result<(), String> + Send>;

/// Something that goes on behind a call.
pub struct Task {
    kind: String,
    polls_left: u32,
    exit: Option<String>,
    pub log: Vec<String>,
    effect: Option<Effect>,
}

impl State {
    /// Whether a task of this kind is running.
    pub fn runs(&self, kind: &str) -> bool {
        self.tasks
            .values()
            .any(|t| t.kind == kind && t.exit.is_none())
    }

    pub fn begin(
        &mut self,
        kind: &str,
        id: &str,
        log: &str,
        effect: impl FnOnce(&mut Self) -> Result<(), String> + Send + 'static,
    ) -> Reply {
        self.started += 1;
        let n = self.started;
        let upid = format!("UPID:{NODE}:{n:08X}:{n:08X}:65A0B1C2:{kind}:{id}:op@pve!holdfast:");
        let task = Task {
            kind: kind.into(),
            polls_left: 2,
            exit: None,
            log: vec![log.to_owned()],
            effect: Some(Box::new(effect)),
        };
        self.tasks.insert(upid.clone(), task);
        if self.quick {
            self.finish_all();
        }
        Reply::Data(json!(upid))
    }

    /// A worker that is interrupted removes what it made.
    pub fn break_off(&mut self, upid: &str) {
        let Some(task) = self.tasks.get_mut(upid).filter(|t| t.exit.is_none()) else {
            return;
        };
        task.exit = Some("interrupted by signal".into());
        task.effect = None;
        let made = matches!(task.kind.as_str(), "qmcreate" | "qmclone");
        self.vms.retain(|_, vm| !made || vm.lock.is_none());
    }

    /// As time would: tasks end whether somebody watches or not.
    pub fn finish_all(&mut self) {
        let all: Vec<String> = self.tasks.keys().cloned().collect();
        for upid in all {
            for _ in 0..4 {
                self.task_status(&upid);
            }
        }
    }

    pub fn task_status(&mut self, upid: &str) -> Reply {
        let Some(task) = self.tasks.get_mut(upid) else {
            return Reply::parameter("upid", "no such task");
        };
        if task.exit.is_none() && !self.held.contains(task.kind.as_str()) {
            if task.polls_left > 0 {
                task.polls_left -= 1;
            } else if let Some(effect) = task.effect.take() {
                let ended = effect(self);
                let task = self.tasks.get_mut(upid).unwrap();
                task.exit = Some(match ended {
                    Ok(()) => "OK".into(),
                    Err(why) => {
                        task.log.push(format!("TASK ERROR: {why}"));
                        why
                    }
                });
            }
        }
        match &self.tasks[upid].exit {
            None => Reply::Data(json!({ "status": "running" })),
            Some(exit) => Reply::Data(json!({ "status": "stopped", "exitstatus": exit })),
        }
    }
}
