//! What a task has come to.
//!
//! ```text
//! Running --status running--> Running (asked again after a pause that grows)
//!         --stopped, OK-----> Done
//!         --stopped, WARNINGS--> Done (told)
//!         --stopped, else---> Failed (with the log's last lines)
//! ```

use crate::answers::TaskStatus;
use std::time::Duration;

/// The first pause between two questions, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// So many of a failed task's last lines are shown.
pub const LAST_LINES: usize = 12;

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Well.
    Done,
    /// Well, with warnings: Proxmox's words.
    Warned(String),
    /// Not: its exit status in words.
    Failed(String),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Ask again after this.
    Wait(Duration),
    /// It is over.
    Over(Ended),
}

/// Watches one task.
#[derive(Debug, Clone)]
pub struct Watch {
    pause: Duration,
}

impl Default for Watch {
    fn default() -> Self {
        Self { pause: PAUSES.0 }
    }
}

impl Watch {
    /// Takes in a status.
    pub fn heard(&mut self, status: &TaskStatus) -> Next {
        match status {
            TaskStatus::Running => {
                let pause = self.pause;
                self.pause = (pause * 3 / 2).min(PAUSES.1);
                Next::Wait(pause)
            }
            TaskStatus::Stopped(exit) if exit == "OK" => Next::Over(Ended::Done),
            TaskStatus::Stopped(exit) if exit.starts_with("WARNINGS") => {
                Next::Over(Ended::Warned(exit.clone()))
            }
            TaskStatus::Stopped(exit) => Next::Over(Ended::Failed(exit.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_watched_to_its_end() {
        let mut watch = Watch::default();
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            let Next::Wait(pause) = watch.heard(&TaskStatus::Running) else {
                panic!("over")
            };
            assert!(pause >= last && pause <= PAUSES.1);
            last = pause;
        }
        let mut end = |words: &str| watch.heard(&TaskStatus::Stopped(words.into()));
        assert_eq!(end("OK"), Next::Over(Ended::Done));
        assert!(matches!(end("WARNINGS: 1"), Next::Over(Ended::Warned(_))));
        assert!(matches!(
            end("unexpected status"),
            Next::Over(Ended::Failed(_))
        ));
    }
}
