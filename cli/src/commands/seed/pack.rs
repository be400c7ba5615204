//! `holdfast seed pack`.

use crate::app::{App, print_line};
use crate::exit::Exit;
use crate::files;
use crate::seed_file;
use anyhow::Result;
use holdfast_core::seed::compact;
use serde::Serialize;
use std::path::PathBuf;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast seed pack n1.seed.toml --smbios
  qm set 101 --smbios1 uuid=UUID,serial=$(holdfast seed pack n1.seed.toml --smbios)
      UUID: the one that `qm config 101` shows; without it the machine has none
  holdfast seed pack n1.seed.toml --smbios --out n1.serial

The line is the seed itself, its token included: whoever reads it can join in the node's place until \
the token is used. Of Proxmox's 512 characters the UUID leaves 463; an ordinary seed takes about 320. \
The serial is given as it is; with `base64=1` Proxmox wants it encoded once more.")]
pub struct Args {
    /// The seed
    #[arg(value_name = "FILE")]
    seed: PathBuf,
    /// As the serial number of a machine's SMBIOS
    #[arg(long, required = true)]
    smbios: bool,
    /// Write it here, readable by you only ['-': standard output]
    #[arg(short = 'o', long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Packed<'a> {
    serial: &'a str,
    characters: usize,
    most: usize,
}

/// Runs the verb.
pub fn run(app: &App, args: &Args) -> Result<()> {
    let file = seed_file::read(&args.seed)?;
    let line = compact::pack(&file.seed)
        .map_err(|e| Exit::Usage.error(format!("{}: {e}", args.seed.display())))?;
    if args.out.as_os_str() != "-" {
        files::write_secret(&args.out, format!("{}\n", *line).as_bytes())?;
        let packed = serde_json::json!({ "file": args.out, "characters": line.len(), "most": compact::MAX_CHARS });
        return app.print(&packed, || {
            format!(
                "{}: {} characters of at most {}.",
                args.out.display(),
                line.len(),
                compact::MAX_CHARS
            )
        });
    }
    if app.json() {
        let packed = Packed {
            serial: &line,
            characters: line.len(),
            most: compact::MAX_CHARS,
        };
        return app.print(&packed, String::new);
    }
    print_line(&line).map(|_| ())
}
