//! What the node tells a person who takes its disk to another computer: `report.txt` and, for
//! programs, `report.json`, on the volume HOLDFAST.

use super::volume;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tokio::sync::Mutex;

/// Where the join stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// A word for programs: `no-seed`, `bad-seed`, `cannot-join`, `joined`, ...
    pub state: &'static str,
    /// Where the seed came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What happened.
    pub message: String,
    /// What a person can do.
    pub advice: String,
    /// The image's version.
    pub version: String,
    /// Unix seconds by the node's clock, which may not be set.
    pub at: u64,
}

impl Report {
    fn text(&self) -> String {
        let from = self
            .source
            .as_ref()
            .map_or(String::new(), |s| format!("Seed:    {s}\r\n"));
        format!(
            "Holdfast {}\r\n\r\nState:   {}\r\n{from}What:    {}\r\nTo do:   {}\r\n",
            self.version, self.state, self.message, self.advice
        )
    }

    /// Whether it says the same as `other`, whenever that was: numbers ("expired 5 s ago") are no
    /// news, and flash memory wears.
    fn same(&self, other: &Self) -> bool {
        let words = |r: &Self| Self {
            at: 0,
            message: r.message.chars().filter(|c| !c.is_ascii_digit()).collect(),
            ..r.clone()
        };
        words(self) == words(other)
    }
}

/// Leaves reports on the volume, one each time something changed.
pub struct Reporter {
    volume: Option<PathBuf>,
    last: Mutex<Option<Report>>,
}

impl Reporter {
    /// For the `hf-seed` partition, if there is one.
    pub fn new(volume: Option<PathBuf>) -> Self {
        Self {
            volume,
            last: Mutex::new(None),
        }
    }

    /// Says it on the console and leaves it on the volume, unless it was said last.
    pub async fn tell(&self, report: Report) {
        let mut last = self.last.lock().await;
        if last.as_ref().is_some_and(|l| l.same(&report)) {
            return;
        }
        let from = report
            .source
            .as_ref()
            .map_or(String::new(), |s| format!(" ({s})"));
        crate::console::say(&format!(
            "{}: {}{from}. {}",
            report.state, report.message, report.advice
        ));
        if let Some(volume) = self.volume.clone() {
            crate::console::say(&match leave(volume, report.clone()).await {
                Ok(()) => "report written".into(),
                Err(e) => format!("no report could be left on hf-seed: {e:#}"),
            });
        }
        *last = Some(report);
    }

    /// Forgets what was said, so that it is said again on a fresh volume.
    pub async fn forget(&self) {
        *self.last.lock().await = None;
    }
}

/// Off the event loop, where a panic over a damaged volume is an error as any other.
async fn leave(partition: PathBuf, report: Report) -> anyhow::Result<()> {
    volume::with(volume::PATIENCE, move || write(&partition, &report)).await
}

fn write(partition: &Path, report: &Report) -> anyhow::Result<()> {
    let json = serde_json::to_vec_pretty(report)?;
    volume::write_files(
        partition,
        &[
            ("report.txt", report.text().into_bytes()),
            ("report.json", json),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_volume_that_cannot_be_written_holds_up_nobody() {
        let report = Report {
            state: "no-seed",
            source: None,
            message: "no seed".into(),
            advice: "none".into(),
            version: "1".into(),
            at: 5,
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(leave(file.path().into(), report.clone()).await.is_err());
        let reporter = Reporter::new(Some(file.path().into()));
        reporter.tell(report).await;
        reporter.forget().await;
    }

    #[test]
    fn the_same_news_at_another_time_is_no_news() {
        let report = Report {
            state: "bad-seed",
            source: Some("here".into()),
            message: "line 3: unknown field".into(),
            advice: "mend it".into(),
            version: "1".into(),
            at: 5,
        };
        assert!(report.same(&Report {
            at: 9,
            ..report.clone()
        }));
        assert!(report.same(&Report {
            message: "line 12: unknown field".into(),
            ..report.clone()
        }));
        assert!(!report.same(&Report {
            state: "joined",
            ..report.clone()
        }));
        assert!(report.text().contains("line 3"));
    }
}
