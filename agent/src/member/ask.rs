//! How the running member is asked: a line on its socket, an answer in JSON. `down` is answered by
//! the connection's end, when everything is taken back.

use crate::forever::forever;
use crate::meshed::account;
use crate::node::Node;
use anyhow::{Context as _, bail};
use holdfast_core::control::MeshPeer;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// A request is a word.
const LONGEST: u64 = 64;
/// An answer takes no longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn path(dir: &Path) -> PathBuf {
    dir.join("socket")
}

pub(super) fn listen(dir: &Path) -> anyhow::Result<UnixListener> {
    let path = path(dir);
    // The lock is held: a socket that is there is a dead process's.
    remove(dir);
    let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub(super) fn remove(dir: &Path) {
    let _ = std::fs::remove_file(path(dir));
}

/// Answers for ever.
pub(super) async fn serve(listener: UnixListener, node: Arc<Node>, end: watch::Sender<bool>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (node, end) = (node.clone(), end.clone());
                forever("asked", async move {
                    if let Ok(Err(e)) = timeout(PATIENCE, answer(stream, &node, &end)).await {
                        tracing::warn!("a request on the socket: {e:#}");
                    }
                });
            }
            Err(e) => {
                tracing::warn!("the socket: {e}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(
    mut stream: UnixStream,
    node: &Node,
    end: &watch::Sender<bool>,
) -> anyhow::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new((&mut stream).take(LONGEST));
    reader.read_line(&mut line).await?;
    match line.trim_end() {
        "status" => {
            let peers = account::peers(node).await.map_err(|e| format!("{e:#}"));
            stream.write_all(&serde_json::to_vec(&peers)?).await?;
        }
        "down" => {
            end.send_replace(true);
            // The asker reads until this process is gone.
            std::future::pending::<()>().await;
        }
        other => bail!("{other:?} is no request"),
    }
    Ok(())
}

/// What the member says; none: it does not run.
async fn ask(dir: &Path, what: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let mut stream = match UnixStream::connect(path(dir)).await {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(e) => return Err(e).with_context(|| path(dir).display().to_string()),
    };
    let exchange = async {
        stream.write_all(format!("{what}\n").as_bytes()).await?;
        let mut all = vec![];
        match stream.read_to_end(&mut all).await {
            Err(e) if e.kind() != ErrorKind::ConnectionReset => Err(e),
            _ => Ok(all),
        }
    };
    let answer = timeout(PATIENCE, exchange)
        .await
        .context("the member does not answer")?;
    Ok(Some(answer?))
}

/// The running member's peers; none: it does not run.
///
/// # Errors
/// When it cannot be asked, or its mesh is down.
pub async fn status(dir: &Path) -> anyhow::Result<Option<Vec<MeshPeer>>> {
    let Some(answer) = ask(dir, "status").await? else {
        return Ok(None);
    };
    let peers: Result<Vec<MeshPeer>, String> =
        serde_json::from_slice(&answer).context("the member's answer does not parse")?;
    peers.map(Some).map_err(anyhow::Error::msg)
}

/// Ends the running member; true when it ran.
///
/// # Errors
/// When it does not end.
pub async fn down(dir: &Path) -> anyhow::Result<bool> {
    Ok(ask(dir, "down").await?.is_some())
}
