//! The seed: where it is looked for, which one counts, and what is told about it.

pub mod choose;
pub mod cidata;
#[cfg(test)]
pub mod fuzz;
pub mod fwcfg;
mod patience;
pub mod report;
pub mod smbios;
pub mod volume;

use crate::disk;
use choose::{Finding, Found, Good, Held, Source, choose, choose_again};
use cidata::{Content, Drives};
use holdfast_core::seed::Seed;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// Where this machine's seeds may be.
#[derive(Debug, Clone)]
pub struct Places {
    /// The `hf-seed` partition.
    pub volume: Option<PathBuf>,
    /// QEMU's `fw_cfg` item.
    pub fw_cfg: PathBuf,
    /// The SMBIOS serial number.
    pub serial: PathBuf,
    /// Drives that may be labelled `cidata`.
    pub drives: Drives,
    /// The board that this image is for; empty when it does not say.
    pub board: String,
}

impl Places {
    /// Looks in each place, in the order of decision 13; a volume that hangs is one that cannot
    /// be read. Drives are looked at only where no place before them holds a seed.
    pub async fn look(&self) -> Finding {
        let mut found = self.fixed().await;
        if !found.iter().any(|f| matches!(f.content, Ok(Some(_)))) {
            found.push(self.drive().await);
        }
        choose(found, &self.board)
    }

    /// Looks for a seed that a joined node has to follow, at the drives only if `drives`; with the
    /// places whose seeds are ignored.
    pub async fn look_again(
        &self,
        drives: bool,
        wanted: impl Fn(&Seed) -> bool,
    ) -> (Option<Good>, Vec<Source>) {
        let mut found = self.fixed().await;
        if drives {
            found.push(self.drive().await);
        }
        choose_again(found, &self.board, wanted)
    }

    /// The places that are there from the start.
    async fn fixed(&self) -> Vec<Found> {
        let mut found: Vec<Found> = vec![];
        if let Some(partition) = self.volume.clone() {
            let read = move || volume::read_seed(&partition).map_err(anyhow::Error::msg);
            let content = volume::with(volume::PATIENCE, read).await;
            found.push(Found {
                source: Source::Volume,
                content: content
                    .map(|bytes| bytes.map(Held::File))
                    .map_err(|e| format!("{e:#}")),
            });
        }
        let (fw_cfg, serial) = (self.fw_cfg.clone(), self.serial.clone());
        let read = disk::blocking(move || Ok((fwcfg::read(&fw_cfg), smbios::read(&serial))));
        match read.await {
            Ok((fw_cfg, serial)) => found.extend([
                Found {
                    source: Source::FwCfg,
                    content: fw_cfg.map(|bytes| bytes.map(Held::File)),
                },
                Found {
                    source: Source::Smbios,
                    content: serial.map(|line| line.map(Held::Line)),
                },
            ]),
            Err(e) => found.push(Found {
                source: Source::FwCfg,
                content: Err(format!("{e:#}")),
            }),
        }
        found
    }

    /// A drive labelled `cidata`, if one is there now.
    pub async fn drive(&self) -> Found {
        let content: Result<Option<Content>, String> = self.drives.read().await;
        Found {
            source: Source::Cidata,
            content: content.map(|drive| drive.map(Held::Drive)),
        }
    }

    /// Waits until a drive labelled `cidata` holds something, for `limit` at most. Drivers of CD
    /// drives load late.
    pub async fn wait_for_drive(&self, limit: Duration) -> Option<Held> {
        let wait = async {
            let mut known = BTreeSet::new();
            loop {
                if let Ok(Some(held)) = self.drive().await.content {
                    return held;
                }
                // A drive that is there may not be ready yet.
                let changed = self.drives.changed(&mut known);
                let _ = tokio::time::timeout(Duration::from_secs(10), changed).await;
            }
        };
        tokio::time::timeout(limit, wait).await.ok()
    }
}

/// The first `limit` bytes of a file; `None` when it is not there.
fn read_file(path: &Path, limit: usize) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    // Room for all of it: a buffer that grows leaves copies of the token behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    file.take(limit as u64)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    Ok(Some(bytes))
}
