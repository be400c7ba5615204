//! The seed: where it is looked for, which one counts, and what is told about it.

pub mod choose;
pub mod fwcfg;
pub mod report;
pub mod volume;

use choose::{Finding, Found, choose};
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
    /// Looks in each place, in the order of decision 13.
    pub fn look(&self) -> Finding {
        let mut found: Vec<Found> = vec![];
        if let Some(volume) = &self.volume {
            found.push(Found {
                source: choose::Source::Volume,
                content: volume::read_seed(volume),
            });
        }
        found.push(Found {
            source: choose::Source::FwCfg,
            content: fwcfg::read(&self.fw_cfg),
        });
        choose(found)
    }
}
