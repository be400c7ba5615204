//! What a node does for an operator.

use super::failed;
use super::frames::Frames;
use crate::k3s;
use crate::lighthouse::status;
use crate::meshed::account;
use crate::node::{Node, event};
use crate::update::{self, Order};
use anyhow::Context as _;
use holdfast_core::control::{LogLine, MAX_PINGS, Reply, Request};
use holdfast_core::documents::Operator;
use holdfast_core::ipc::{InitRequest, LOG_SOCKET, LogRequest};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

/// How long a reboot waits for the operator to hear of it.
const FAREWELL: Duration = Duration::from_secs(5);
/// Between two questions to a member.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long until a reboot into a trial is asked for again.
const REBOOT_AGAIN: Duration = Duration::from_secs(5);

/// Answers one request.
///
/// # Errors
/// When the stream fails; what fails on the node is an answer.
pub async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send>(
    node: &Arc<Node>,
    operator: &Operator,
    request: Request,
    frames: &mut Frames<S>,
) -> anyhow::Result<()> {
    match request {
        Request::Status => {
            // Counters belong to accounts for the lighthouse; this one goes to one reader.
            let reply = match status::account(node, node.store.get().status_counter).await {
                Ok(status) => Reply::Status(Box::new(status)),
                Err(e) => failed("unavailable", format!("{e:#}")),
            };
            frames.write(&reply).await?;
            finish(frames, &reply).await
        }
        Request::History => {
            let reply = Reply::History(node.store.get().history.clone());
            frames.write(&reply).await?;
            finish(frames, &reply).await
        }
        Request::Mesh => {
            let reply = match account::peers(node).await {
                Ok(peers) => Reply::Mesh(peers),
                Err(e) => failed("unavailable", format!("{e:#}")),
            };
            frames.write(&reply).await?;
            finish(frames, &reply).await
        }
        Request::MeshPing { member, count } => ping(node, &member, count, frames).await,
        Request::Logs {
            lines,
            follow,
            unit,
        } => {
            logs(
                frames,
                LogRequest {
                    lines,
                    follow,
                    unit,
                },
            )
            .await
        }
        Request::Reboot { rescue } => {
            let what = if rescue {
                "reboot into the rescue system"
            } else {
                "reboot"
            };
            note(node, operator, "reboot", what).await;
            farewell(frames).await;
            update::reboot(
                node,
                format!("{what}, asked for by {}", operator.name),
                rescue,
            )
            .await
        }
        Request::RestartAgent => {
            note(node, operator, "restart-agent", "the agent is started anew").await;
            farewell(frames).await;
            node.init.ask(InitRequest::RestartAgent).await.map(drop)
        }
        Request::Rollback => rollback(node, operator, frames).await,
        Request::Upgrade {
            url,
            digest,
            len,
            allow_downgrade,
        } => {
            let operator = operator.name.clone();
            upgrade(
                node,
                Order {
                    url,
                    digest,
                    len,
                    allow_downgrade,
                    operator,
                },
                frames,
            )
            .await
        }
        Request::Kubeconfig => {
            let reply = match tokio::fs::read_to_string(k3s::KUBECONFIG).await {
                Ok(text) => Reply::Text(text),
                Err(e) => failed(
                    "unavailable",
                    format!("k3s has not written its configuration yet: {e}"),
                ),
            };
            frames.write(&reply).await?;
            finish(frames, &reply).await
        }
        Request::KubeTunnel => tunnel(frames).await,
    }
}

async fn finish<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut Frames<S>,
    reply: &Reply,
) -> anyhow::Result<()> {
    if !matches!(reply, Reply::Failed { .. }) {
        frames.write(&Reply::Done).await?;
    }
    Ok(())
}

async fn ping<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    member: &str,
    count: u32,
    frames: &mut Frames<S>,
) -> anyhow::Result<()> {
    let mut beat = tokio::time::interval(PING_EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for _ in 0..count.clamp(1, MAX_PINGS) {
        beat.tick().await;
        match account::ping(node, member).await {
            Ok(answer) => frames.write(&Reply::Ping(answer)).await?,
            Err(e) => {
                let reply = failed("unavailable", format!("{e:#}"));
                return Ok(frames.write(&reply).await?);
            }
        }
    }
    Ok(frames.write(&Reply::Done).await?)
}

/// Tells the operator that it is done, before what ends this very stream; who has gone is not
/// waited for.
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(frames: &mut Frames<S>) {
    let told = async {
        frames.write(&Reply::Done).await?;
        frames.end().await?;
        // Written is not arrived, and this node's mesh ends with it: the operator closes once the
        // answer is read.
        tokio::io::copy(frames.raw(), &mut tokio::io::sink()).await?;
        anyhow::Ok(())
    };
    if !matches!(tokio::time::timeout(FAREWELL, told).await, Ok(Ok(()))) {
        tracing::debug!("the operator's stream broke before the end");
    }
}

async fn note(node: &Node, operator: &Operator, what: &str, detail: &str) {
    let mut entry = event(what, detail);
    entry.operator = Some(operator.name.to_string());
    node.remember(entry).await;
}

async fn logs<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut Frames<S>,
    request: LogRequest,
) -> anyhow::Result<()> {
    let mut socket = match UnixStream::connect(LOG_SOCKET).await {
        Ok(socket) => BufReader::new(socket),
        Err(e) => {
            let reply = failed(
                "unavailable",
                format!("the log does not answer ({LOG_SOCKET}: {e})"),
            );
            return Ok(frames.write(&reply).await?);
        }
    };
    let mut ask = serde_json::to_vec(&request)?;
    ask.push(b'\n');
    socket.write_all(&ask).await?;
    let mut lines = socket.lines();
    while let Some(line) = lines.next_line().await? {
        let line: LogLine =
            serde_json::from_str(&line).context("the log's answer does not parse")?;
        frames.write(&Reply::Line(line)).await?;
    }
    Ok(frames.write(&Reply::Done).await?)
}

async fn rollback<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    operator: &Operator,
    frames: &mut Frames<S>,
) -> anyhow::Result<()> {
    let Ok(_writing) = node.writing.try_lock() else {
        return Ok(frames
            .write(&failed("busy", "a slot is being written"))
            .await?);
    };
    let asked = async {
        // Asked before k3s is stopped for its copy.
        update::going_back(&node.init.boot().await?.boot)?;
        // The other slot's k3s is not known here: any is another one.
        update::prepare_trial(node, None).await?;
        node.init.ask(InitRequest::Rollback).await
    };
    if let Err(e) = asked.await {
        k3s::no_trial(node).await;
        return Ok(frames
            .write(&failed("unavailable", format!("{e:#}")))
            .await?);
    }
    let mut entry = event("rollback", "the other slot is on trial at the next start");
    entry.operator = Some(operator.name.to_string());
    entry.slot = Some(update::free_slot(&node.boot.boot));
    node.remember(entry).await;
    farewell(frames).await;
    into_trial(node, &format!("rollback, asked for by {}", operator.name)).await;
    Ok(())
}

/// Reboots into a trial that is set. An error is no end: k3s is stopped, and its copy ages.
async fn into_trial(node: &Node, reason: &str) {
    while let Err(e) = update::reboot(node, reason.into(), false).await {
        tracing::warn!("the reboot into the trial is asked for again: {e:#}");
        tokio::time::sleep(REBOOT_AGAIN).await;
    }
}

/// The upgrade goes on when the operator's stream ends: it was asked for.
async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Arc<Node>,
    order: Order,
    frames: &mut Frames<S>,
) -> anyhow::Result<()> {
    let (tell, mut told) = mpsc::channel(16);
    let worker = node.clone();
    tokio::spawn(async move {
        carry_out(&worker, &order, tell).await;
    });
    while let Some(reply) = told.recv().await {
        let last = matches!(reply, Reply::Done | Reply::Failed { .. });
        frames.write(&reply).await?;
        if last {
            break;
        }
    }
    frames.end().await
}

async fn carry_out(node: &Node, order: &Order, tell: mpsc::Sender<Reply>) {
    let Ok(_writing) = node.writing.try_lock() else {
        let _ = tell
            .send(failed("busy", "a slot is being written already"))
            .await;
        return;
    };
    match update::upgrade(node, order, tell.clone()).await {
        Ok(slot) => {
            let farewell = async {
                let _ = tell.send(Reply::Done).await;
                tell.closed().await;
            };
            let _ = tokio::time::timeout(FAREWELL, farewell).await;
            let reason = format!("upgrade in slot {slot}, asked for by {}", order.operator);
            into_trial(node, &reason).await;
        }
        Err(e) => {
            crate::console::say(&format!("upgrade refused: {e}"));
            k3s::no_trial(node).await;
            let mut entry = event("upgrade-refused", e.to_string());
            entry.operator = Some(order.operator.to_string());
            node.remember(entry).await;
            let _ = tell.send(failed(e.kind(), e.to_string())).await;
        }
    }
}

async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(frames: &mut Frames<S>) -> anyhow::Result<()> {
    match TcpStream::connect(k3s::API).await {
        Ok(mut api) => {
            let _ = api.set_nodelay(true);
            frames.write(&Reply::Tunnel).await?;
            // How a tunnel ends is its users' affair.
            let _ = tokio::io::copy_bidirectional(frames.raw(), &mut api).await;
            Ok(())
        }
        Err(e) => {
            let reply = failed(
                "unavailable",
                format!("the Kubernetes API does not answer on this node: {e}"),
            );
            Ok(frames.write(&reply).await?)
        }
    }
}
