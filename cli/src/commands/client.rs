//! `holdfast client`: members that are no nodes.

mod new;
mod qr;
mod wireguard;

use crate::app::App;
use anyhow::Result;

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Make a plain WireGuard configuration, for a phone or a laptop
    New(new::Args),
}

/// Runs the verb.
pub async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::New(args) => new::run(app, args).await,
    }
}
