//! The way to the Kubernetes API: a port of this machine's loopback, each connection a control
//! stream of its own to a server node.

use crate::control::Target;
use crate::exit::Exit;
use crate::lighthouse::Connection;
use crate::nodes::Which;
use anyhow::{Context as _, Result};
use holdfast_core::control::{Reply, Request};
use holdfast_core::names::Role;
use holdfast_core::status::K3sState;
use std::net::Ipv4Addr;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The server called `name`, else the first server, those that are Ready before the others.
pub async fn server<'a>(connection: &'a Connection, which: Option<&Which>) -> Result<Target<'a>> {
    if let Some(which) = which {
        return connection.target(which).await;
    }
    let entries = connection.entries().await?;
    let judge = connection.judge();
    let mut servers: Vec<_> = entries
        .iter()
        .filter_map(|e| {
            let view = judge.view(e);
            let member = judge.member(e).ok()?;
            (view.role == Some(Role::Server)).then_some((view.k3s != Some(K3sState::Ready), member))
        })
        .collect();
    servers.sort_by_key(|(not_ready, _)| *not_ready);
    match servers.into_iter().next() {
        Some((_, member)) => Ok(connection.target_of(&member)),
        None => Err(Exit::Failed.error(
            "no node with role server has joined: `holdfast seed new --role server` makes a seed for one",
        )),
    }
}

/// The administrator configuration as k3s on the node wrote it.
pub async fn kubeconfig(target: &Target<'_>) -> Result<String> {
    let mut stream = target.ask(&Request::Kubeconfig).await?;
    match stream.next().await? {
        Some(Reply::Text(text)) => Ok(text),
        other => Err(stream.odd(other.as_ref())),
    }
}

/// The configuration with its server at `port` of this machine's loopback. k3s's certificate names
/// 127.0.0.1, so it fits as it is.
pub fn lead_to(config: &str, port: u16) -> Result<String> {
    let mut replaced = 0;
    let lines: Vec<String> = config
        .lines()
        .map(|line| match line.find("server: https://") {
            Some(at) if line[..at].chars().all(|c| c == ' ' || c == '-') => {
                replaced += 1;
                format!("{}server: https://127.0.0.1:{port}", &line[..at])
            }
            _ => line.to_string(),
        })
        .collect();
    if replaced != 1 {
        anyhow::bail!("the node's kubeconfig names {replaced} servers; one was expected");
    }
    Ok(lines.join("\n") + "\n")
}

/// A listening port that leads to a server node.
pub struct Tunnel {
    listener: TcpListener,
    port: u16,
}

impl Tunnel {
    /// Listens on `port` of 127.0.0.1 (0: any free one).
    pub async fn listen(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
        let port = listener
            .local_addr()
            .context("cannot tell the port")?
            .port();
        Ok(Self { listener, port })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves connections until dropped; one that fails is told on standard error.
    pub async fn serve(&self, target: &Target<'_>) -> Result<()> {
        let mut failed_before = false;
        let mut copies = JoinSet::new();
        loop {
            let (local, _) = self
                .listener
                .accept()
                .await
                .context("the tunnel's port broke")?;
            while copies.try_join_next().is_some() {}
            match open(target).await {
                Ok(remote) => {
                    failed_before = false;
                    copies.spawn(copy(local, remote));
                }
                Err(error) => {
                    // kubectl tries again and again; one explanation is enough.
                    if !failed_before {
                        eprintln!("{}", crate::exit::describe(&error));
                    }
                    failed_before = true;
                }
            }
        }
    }
}

type Remote = holdfast_tls::ClientStream<holdfast_client::Stream>;

async fn open(target: &Target<'_>) -> Result<Remote> {
    let mut stream = target.ask(&Request::KubeTunnel).await?;
    match stream.next().await? {
        Some(Reply::Tunnel) => Ok(stream.into_raw()),
        other => Err(stream.odd(other.as_ref())),
    }
}

async fn copy(mut local: TcpStream, mut remote: Remote) {
    // Either side hanging up ends the connection; whose fault it was, kubectl says itself.
    let _ = tokio::io::copy_bidirectional(&mut local, &mut remote).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_server_line_changes() {
        let config = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: AAA=\n    server: https://127.0.0.1:6443\n  name: default\n";
        let led = lead_to(config, 1234).unwrap();
        assert_eq!(led, config.replace("6443", "1234"));
        assert!(lead_to("kind: Config\n", 1).is_err());
    }
}
