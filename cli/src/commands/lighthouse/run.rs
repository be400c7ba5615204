//! `holdfast lighthouse run`.

use super::config::{LighthouseConfig, relay_rate};
use crate::app::App;
use anyhow::{Context as _, Result};
use holdfast_lighthouse::{Config, Lighthouse};
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast lighthouse run --dir demo/lighthouse
  holdfast lighthouse run --dir /var/lib/holdfast-lighthouse --https 0.0.0.0:443

Runs as an ordinary user and in any container. It listens where FOLDER/config.toml says; what it logs \
goes to standard error (HOLDFAST_LOG=debug for more).")]
pub struct Args {
    /// The lighthouse's folder [default: lighthouse/ of the cluster's directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Listen here instead (TCP); may be repeated
    #[arg(long, value_name = "ADDRESS:PORT")]
    https: Vec<SocketAddr>,
    /// Listen here instead (UDP)
    #[arg(long, value_name = "ADDRESS:PORT")]
    udp: Option<SocketAddr>,
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let dir = match args.dir {
        Some(dir) => dir,
        None => app.cluster()?.lighthouse(),
    };
    let mut config = Config::new(&dir);
    let listen = LighthouseConfig::read(&dir)?;
    let relay = relay_rate(listen.as_ref());
    if let Some(listen) = listen {
        config.https = listen.https;
        config.udp = Some(listen.udp);
    }
    if !args.https.is_empty() {
        config.https = args.https;
    }
    config.udp = args.udp.or(config.udp);
    let filter = EnvFilter::try_from_env("HOLDFAST_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let mut terms = signal(SignalKind::terminate()).context("cannot watch for signals")?;
    let shutdown = async move {
        tokio::select! {
            _ = terms.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    let run = async {
        let running = Lighthouse::start(config).await?;
        running.limit_relay(relay);
        running.until(shutdown).await
    };
    run.await.context("the lighthouse does not run")
}
