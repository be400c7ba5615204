//! `holdfast kubectl ARGS...`.

use crate::app::App;
use crate::exit::Exit;
use crate::kube;
use crate::lighthouse::connect;
use anyhow::{Context as _, Result};
use holdfast_core::names::NodeName;
use std::path::{Path, PathBuf};

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast kubectl get nodes -o wide
  holdfast kubectl --node n1 -- get pods -A

kubectl is --kubectl, HOLDFAST_KUBECTL, or `kubectl` or `k3s` in PATH; a program whose name begins
with k3s is run as `k3s kubectl`. Its exit code is passed on.")]
pub struct Args {
    /// Through this server [default: the first that is Ready]
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
    /// The kubectl to run
    #[arg(long, env = "HOLDFAST_KUBECTL", value_name = "PATH")]
    kubectl: Option<PathBuf>,
    /// kubectl's own arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

fn program(given: Option<PathBuf>) -> Result<(PathBuf, bool)> {
    let found = given
        .or_else(|| in_path("kubectl"))
        .or_else(|| in_path("k3s"))
        .ok_or_else(|| {
            Exit::Failed.error(
                "no kubectl found: install one, or name it with --kubectl PATH or HOLDFAST_KUBECTL",
            )
        })?;
    let is_k3s = Path::new(found.file_name().unwrap_or_default())
        .to_string_lossy()
        .starts_with("k3s");
    Ok((found, is_k3s))
}

/// Runs the verb; gives kubectl's exit code.
pub async fn run(app: &App, args: Args) -> Result<u8> {
    let (program, is_k3s) = program(args.kubectl)?;
    let connection = connect(app).await?;
    let target = kube::server(&connection, args.node.as_ref()).await?;
    let tunnel = kube::Tunnel::listen(0).await?;
    let config = kube::lead_to(&kube::kubeconfig(&target).await?, tunnel.port())?;
    // Readable by its owner only, and gone with this process.
    let file = tempfile::Builder::new()
        .prefix("holdfast-kube-")
        .suffix(".yaml")
        .tempfile()
        .context("cannot make a temporary file")?;
    std::fs::write(file.path(), config)
        .with_context(|| format!("cannot write {}", file.path().display()))?;
    let mut command = tokio::process::Command::new(&program);
    if is_k3s {
        command.arg("kubectl");
    }
    command.args(&args.args).env("KUBECONFIG", file.path());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let ended = async {
        loop {
            // kubectl gets the terminal's Ctrl-C itself and decides what it means.
            tokio::select! {
                status = child.wait() => break status,
                _ = tokio::signal::ctrl_c() => {}
            }
        }
    };
    let status = tokio::select! {
        status = ended => status.context("waiting for kubectl")?,
        result = tunnel.serve(&target) => return result.map(|()| Exit::Failed as u8),
    };
    Ok(status
        .code()
        .and_then(|c| u8::try_from(c).ok())
        .unwrap_or(Exit::Failed as u8))
}
