//! `holdfast kubeconfig`.

use crate::app::{App, print_line};
use crate::kube;
use crate::lighthouse::connect;
use crate::nodes::Which;
use anyhow::Result;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast kubeconfig > admin.yaml
  holdfast kubeconfig --serve 16443        for helm, k9s and others, until Ctrl-C

As k3s wrote it, its server is the node's own 127.0.0.1. With --serve a tunnel is held open on this \
machine's 127.0.0.1, and the configuration printed leads there.")]
pub struct Args {
    /// Which server [default: the first that is Ready]
    node: Option<Which>,
    /// Hold a tunnel open on this port of 127.0.0.1 (0: any free one)
    #[arg(long, value_name = "PORT")]
    serve: Option<u16>,
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let connection = connect(app).await?;
    let target = kube::server(&connection, args.node.as_ref()).await?;
    let config = kube::kubeconfig(&target).await?;
    let Some(port) = args.serve else {
        return if app.json() {
            app.print(&serde_json::json!({ "kubeconfig": config }), String::new)
        } else {
            print_line(config.trim_end()).map(|_| ())
        };
    };
    let tunnel = kube::Tunnel::listen(port).await?;
    let config = kube::lead_to(&config, tunnel.port())?;
    print_line(config.trim_end())?;
    app.say(&format!(
        "# tunnel to {} on 127.0.0.1:{} until Ctrl-C",
        target.name(),
        tunnel.port()
    ));
    tokio::select! {
        result = tunnel.serve(&target) => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}
