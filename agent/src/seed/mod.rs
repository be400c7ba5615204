//! The seed: where it is looked for, which one counts, and what is told about it.

pub mod choose;
pub mod fwcfg;
pub mod report;
pub mod volume;

use crate::disk;
use choose::{Finding, Found, Source, choose};
use std::path::PathBuf;

/// Where this machine's seeds may be.
#[derive(Debug, Clone)]
pub struct Places {
    /// The `hf-seed` partition.
    pub volume: Option<PathBuf>,
    /// QEMU's `fw_cfg` item.
    pub fw_cfg: PathBuf,
}

impl Places {
    /// Looks in each place, in the order of decision 13; a volume that hangs is one that cannot
    /// be read.
    pub async fn look(&self) -> Finding {
        let mut found: Vec<Found> = vec![];
        if let Some(partition) = self.volume.clone() {
            let read = move || volume::read_seed(&partition).map_err(anyhow::Error::msg);
            let content = volume::with(volume::PATIENCE, read).await;
            found.push(Found {
                source: Source::Volume,
                content: content.map_err(|e| format!("{e:#}")),
            });
        }
        let fw_cfg = self.fw_cfg.clone();
        let chosen = disk::blocking(move || {
            found.push(Found {
                source: Source::FwCfg,
                content: fwcfg::read(&fw_cfg),
            });
            Ok(choose(found))
        });
        chosen.await.unwrap_or_else(|e| Finding::Nothing {
            unreadable: vec![format!("{e:#}")],
        })
    }
}
