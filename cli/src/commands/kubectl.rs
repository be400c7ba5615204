//! `holdfast kubectl ARGS...`.

use crate::app::App;
use crate::exit::Exit;
use crate::kube;
use crate::lighthouse::connect;
use crate::nodes::Which;
use crate::secrets::VARIABLE;
use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Watch, SignalKind, signal};
use tokio::time::timeout;

/// How long kubectl may take to end once it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast kubectl get nodes -o wide
  holdfast kubectl --node n1 -- get pods -A

kubectl is --kubectl, HOLDFAST_KUBECTL, or `kubectl` or `k3s` in PATH; a program whose name begins \
with k3s is run as `k3s kubectl`. Its exit code is passed on.")]
pub struct Args {
    /// Through this server [default: the first that is Ready]
    #[arg(long, value_name = "NODE")]
    node: Option<Which>,
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

/// kubectl (or what stands for it) as it is run. It and its plugins are other people's programs: the
/// passphrase is none of their business.
fn command(program: &Path, is_k3s: bool, args: &[String], config: &Path) -> Command {
    let mut command = Command::new(program);
    if is_k3s {
        command.arg("kubectl");
    }
    command
        .args(args)
        .env("KUBECONFIG", config)
        .env_remove(VARIABLE)
        .kill_on_drop(true);
    command
}

/// The signals that would end this program before the configuration is removed; from the first watch
/// on none of them does.
struct Signals {
    interrupt: Watch,
    terminate: Watch,
    hangup: Watch,
}

impl Signals {
    fn watch() -> Result<Self> {
        let watch = |kind| signal(kind).context("cannot watch for signals");
        Ok(Self {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            hangup: watch(SignalKind::hangup())?,
        })
    }
}

/// Waits for kubectl. A signal that asks this program to end goes on to kubectl.
async fn ended(child: &mut Child, signals: &mut Signals) -> Result<ExitStatus> {
    loop {
        // kubectl gets the terminal's Ctrl-C itself and decides what it means.
        tokio::select! {
            status = child.wait() => return status.context("waiting for kubectl"),
            _ = signals.interrupt.recv() => continue,
            _ = signals.terminate.recv() => {}
            _ = signals.hangup.recv() => {}
        }
        if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).context("cannot signal kubectl")?;
        }
        return timeout(GRACE, child.wait())
            .await
            .map_err(|_| Exit::Failed.error("kubectl did not end when asked to; it was killed"))?
            .context("waiting for kubectl");
    }
}

/// Runs the verb; gives kubectl's exit code.
pub async fn run(app: &App, args: Args) -> Result<u8> {
    let (program, is_k3s) = program(args.kubectl)?;
    let connection = connect(app).await?;
    let target = kube::server(&connection, args.node.as_ref()).await?;
    let tunnel = kube::Tunnel::listen(0).await?;
    let config = kube::lead_to(&kube::kubeconfig(&target).await?, tunnel.port())?;
    let run = async {
        let mut signals = Signals::watch()?;
        // Readable by its owner only, and gone with this process.
        let file = tempfile::Builder::new()
            .prefix("holdfast-kube-")
            .suffix(".yaml")
            .tempfile()
            .context("cannot make a temporary file")?;
        std::fs::write(file.path(), config)
            .with_context(|| format!("cannot write {}", file.path().display()))?;
        let mut child = command(&program, is_k3s, &args.args, file.path())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        ended(&mut child, &mut signals).await
    };
    let status = tokio::select! {
        status = run => status?,
        result = tunnel.serve(&target) => return result.map(|()| Exit::Failed as u8),
    };
    Ok(status
        .code()
        .and_then(|c| u8::try_from(c).ok())
        .unwrap_or(Exit::Failed as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_gets_the_configuration_and_no_passphrase() {
        let config = Path::new("/tmp/c.yaml");
        let made = command(Path::new("k3s"), true, &["get".into()], config);
        let made = made.as_std();
        assert!(made.get_args().eq(["kubectl", "get"]));
        let envs: Vec<_> = made.get_envs().collect();
        assert!(envs.contains(&(VARIABLE.as_ref(), None)), "{envs:?}");
        assert!(envs.contains(&("KUBECONFIG".as_ref(), Some(config.as_ref()))));
    }
}
