//! The `cidata` drive: the seed as `user-data`, and which machine this is.

use crate::exit::Exit;
use crate::seed_file;
use anyhow::{Context as _, Result};
use holdfast_core::guid::Guid;
use holdfast_core::seed::{MAX_LEN, Seed, compact};
use holdfast_proxmox::cidata::{self, META_DATA, NETWORK_CONFIG, USER_DATA};
use holdfast_proxmox::names::MachineName;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Whose images run on Proxmox.
const BOARDS: [&str; 2] = ["proxmox", "x86-64"];

/// A seed that a node would take.
pub struct CheckedSeed {
    text: Zeroizing<String>,
    /// What it says.
    pub seed: Seed,
    network: Option<Vec<u8>>,
}

/// Of what a drive is made.
#[derive(Debug, clap::Args)]
pub struct DriveArgs {
    /// Network configuration for the drive, in cloud-init's form; the seed's own settings go first
    #[arg(long, value_name = "FILE", requires = "seed")]
    network_config: Option<PathBuf>,
    /// Where the drive is put [default: the storage that takes ISO images]
    #[arg(long, value_name = "STORAGE")]
    pub iso_storage: Option<holdfast_proxmox::names::Storage>,
}

fn read(path: &Path, most: usize) -> Result<Vec<u8>> {
    let what = || path.display().to_string();
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(what)?;
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(what)?;
    if bytes.len() > most {
        return Err(Exit::Usage.error(format!("{} is longer than {most} bytes", path.display())));
    }
    Ok(bytes)
}

impl CheckedSeed {
    /// Reads it as a node would.
    pub fn read(path: &Path, drive: &DriveArgs) -> Result<Self> {
        let seed_file::SeedFile { text, seed } = seed_file::read(path)?;
        if let Some(board) = &seed.board
            && !BOARDS.contains(&board.as_str())
        {
            return Err(Exit::Refused.error(format!(
                "{}: the seed is for the board {board}; a machine of Proxmox is one of {}: make a seed \
                 without --board, or for one of these",
                path.display(),
                BOARDS.join(", ")
            )));
        }
        let network = match &drive.network_config {
            Some(path) => Some(read(path, MAX_LEN)?),
            None => None,
        };
        Ok(Self {
            text,
            seed,
            network,
        })
    }

    /// The seed in short form.
    pub fn line(&self) -> Result<String> {
        let line = compact::pack(&self.seed).map_err(|e| Exit::Usage.error(e.to_string()))?;
        Ok(line.to_string())
    }

    /// The drive of one machine.
    pub fn drive(&self, instance: &str, name: &MachineName) -> Result<Vec<u8>> {
        let meta = cidata::meta_data(instance, Some(name.as_str()));
        let mut files: Vec<(&str, &[u8])> = vec![
            (USER_DATA, self.text.as_bytes()),
            (META_DATA, meta.as_bytes()),
        ];
        if let Some(network) = &self.network {
            files.push((NETWORK_CONFIG, network));
        }
        Ok(cidata::iso(&files)?)
    }
}

/// A random UUID (RFC 9562, version 4).
pub fn uuid() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    Ok(Guid::random(random).to_string())
}
