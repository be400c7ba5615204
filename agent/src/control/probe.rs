//! The node asks itself over its own mesh address: proof that the control server answers, for a
//! gate that must not wait for an operator. The node's key is no operator's, so the answer is a
//! refusal; that it came is what counts.

use super::frames::Frames;
use crate::meshed;
use crate::node::{self, Node};
use anyhow::Context as _;
use holdfast_core::cluster::CONTROL_PORT;
use holdfast_core::control::{ALPN, Reply, Request};
use holdfast_tls::Identity;
use std::time::Duration;
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(10);

/// Asks once.
///
/// # Errors
/// When no answer of the control protocol comes.
pub async fn probe(node: &Node) -> anyhow::Result<()> {
    let doc = node.store.get();
    let admission = doc.admission.as_ref().context("this node has not joined")?;
    let identity = doc.identity.as_ref().context("this node has no keys")?;
    let addresses = meshed::addresses(&node::plan(admission), admission.index);
    let ip = addresses.first().context("no mesh address")?.addr();
    let tls = Identity::from_key(&identity.signing)?;
    let config = holdfast_tls::client_config(Some(&tls), identity.signing.public(), &[ALPN])?;
    let ask = async {
        let stream = TcpStream::connect((ip, CONTROL_PORT)).await?;
        let mut frames = Frames::new(holdfast_tls::connect(stream, config).await?);
        frames.write(&Request::Status).await?;
        let answer: Reply = frames.read().await?;
        tracing::debug!(?answer, "own control server");
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, ask)
        .await
        .context("no answer in time")?
}
