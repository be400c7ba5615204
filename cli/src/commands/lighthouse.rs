//! `holdfast lighthouse`.

mod config;
mod folder;
mod install;
mod list;
mod replace;
mod run;
mod several;

pub use config::{CONFIG, LighthouseConfig};

use crate::app::App;
use anyhow::Result;

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Run a lighthouse, in the foreground
    Run(run::Args),
    /// Write a systemd unit for a lighthouse, and say which ports to open
    Install(install::Args),
    /// Prepare one more lighthouse, on another machine
    Add(several::AddArgs),
    /// Take a lighthouse out
    Remove(several::RemoveArgs),
    /// List the lighthouses, and which of them answer
    #[command(after_help = "Example:\n  holdfast lighthouse list --output json")]
    List,
    /// Prepare a lighthouse elsewhere, with new keys, and tell the old one, which still runs
    Move(replace::MoveArgs),
    /// Prepare a lighthouse with new keys in the place of one that is lost
    Restore(replace::RestoreArgs),
}

/// Runs the verb.
pub async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Run(args) => run::run(app, args).await,
        Verb::Install(args) => install::run(app, args),
        Verb::Add(args) => several::add(app, args).await,
        Verb::Remove(args) => several::remove(app, args).await,
        Verb::List => list::run(app).await,
        Verb::Move(args) => replace::move_it(app, args).await,
        Verb::Restore(args) => replace::restore(app, args),
    }
}
