//! `holdfast proxmox`: machines on Proxmox VE, through its HTTP API.

mod clone;
mod connect;
mod create;
mod destroy;
mod drive;
mod image;
mod place;
mod start;
mod work;

use crate::app::App;
use anyhow::Result;

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Make a machine of an image, with its seed on a small drive
    Create(Box<create::Args>),
    /// Make machines of a template, each with a drive of its own
    Clone(Box<clone::Args>),
    /// Remove machines that `create` and `clone` made, with their drives
    Destroy(destroy::Args),
}

/// Runs the verb.
pub async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create(args) => create::run(app, *args).await,
        Verb::Clone(args) => clone::run(app, *args).await,
        Verb::Destroy(args) => destroy::run(app, args).await,
    }
}
