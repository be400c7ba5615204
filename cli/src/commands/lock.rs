//! `holdfast lock RECIPE`.

use crate::app::App;
use crate::find;
use crate::progress::Steps;
use anyhow::Result;
use holdfast_image::lock::Others;
use holdfast_image::{Board, Cache, Sources};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast lock base
  holdfast lock recipes/k3s.toml --board x86-64

Writes RECIPE.lock beside the recipe: every package with its dependencies, by version and SHA-256, \
out of the archive's signed index.")]
pub struct Args {
    /// A recipe's name in recipes/, or its file
    recipe: String,
    /// Lock for this board, and leave the others' lists as they are; may be repeated [default: every
    /// board in boards/, and drop what is of others]
    #[arg(long, value_name = "BOARD")]
    board: Vec<String>,
    #[command(flatten)]
    archive: Archive,
}

/// Where packages come from.
#[derive(Debug, Clone, clap::Args)]
pub struct Archive {
    /// Debian mirror [default: the one in this machine's apt configuration]
    #[arg(long, env = "HOLDFAST_MIRROR", value_name = "URL")]
    mirror: Option<String>,
    /// The archive's public keys [default: Debian's package debian-archive-keyring]
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
}

impl Archive {
    /// As the builder wants it.
    pub fn sources(&self) -> Sources {
        Sources {
            mirror: self.mirror.clone(),
            keyring: self.keyring.clone(),
        }
    }
}

/// Runs the verb.
pub fn run(app: &App, args: Args) -> Result<()> {
    let recipe = find::recipe(&args.recipe)?;
    let files = find::boards(&args.board)?;
    let boards = files
        .iter()
        .map(|f| Board::read(f))
        .collect::<Result<Vec<_>, _>>()?;
    let cache = Cache::open(Cache::default_dir()?)?;
    let steps = Arc::new(Steps::new());
    let others = match args.board.is_empty() {
        true => Others::Drop,
        false => Others::Keep,
    };
    let lock = holdfast_image::lock(
        &recipe,
        &boards,
        others,
        &args.archive.sources(),
        &cache,
        steps.clone(),
    );
    steps.clear();
    let lock = lock?;
    #[derive(Serialize)]
    struct Locked {
        file: PathBuf,
        suite: String,
        packages: usize,
        date: u64,
    }
    let made = Locked {
        file: holdfast_image::lock::path_of(&recipe),
        suite: lock.suite,
        packages: lock.packages.len(),
        date: lock.date,
    };
    app.print(&made, || {
        format!(
            "{}: {} packages of {}, as the archive was on {}",
            made.file.display(),
            made.packages,
            made.suite,
            crate::words::utc(made.date)
        )
    })
}
