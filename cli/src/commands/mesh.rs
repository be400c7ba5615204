//! `holdfast mesh`: how nodes reach each other, as they tell it themselves.

use crate::app::App;
use crate::commands::join::{self, Dir, needs_root};
use crate::exit::Exit;
use crate::lighthouse::connect;
use crate::nodes::Which;
use crate::table::table;
use crate::words::{plain, roughly, size};
use anyhow::Result;
use clap::Subcommand;
use holdfast_agent::member;
use holdfast_core::control::{MAX_PINGS, MeshPath, MeshPeer, MeshPing, PathKind, Reply, Request};
use serde::Serialize;

/// The verbs.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  holdfast mesh status n1
  holdfast mesh ping n1 n2
  sudo holdfast mesh down")]
pub enum Verb {
    /// Show a node's peers, or this machine's: path, endpoint, round trip, MTU, loss, last handshake, bytes
    Status(StatusArgs),
    /// Run this machine's membership here (`holdfast join` has a service do it)
    #[command(after_help = "Example:\n  sudo holdfast mesh up")]
    Up(Dir),
    /// End it: interface and routes go; `mesh up` or a new start of the service brings them back
    #[command(after_help = "Example:\n  sudo holdfast mesh down")]
    Down(Dir),
    /// Have one node ask another: path, endpoint, round trip, loss, MTU
    Ping(PingArgs),
}

/// Options of `mesh status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast mesh status n1\n  holdfast mesh status n1 --output json\n  sudo holdfast mesh status"
)]
pub struct StatusArgs {
    /// Whose peers [default: this machine's, once it has joined]
    node: Option<Which>,
    #[command(flatten)]
    dir: Dir,
}

/// Options of `mesh ping`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast mesh ping n1 n2
  holdfast mesh ping n1 lighthouse --count 20

A path is sought when none is known, so the first answers may be relayed and later ones direct.")]
pub struct PingArgs {
    /// The node that asks
    from: Which,
    /// The node or lighthouse that is asked
    to: String,
    /// How often, once a second
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PINGS)))]
    count: u32,
}

fn way(path: Option<&MeshPath>) -> [String; 2] {
    let Some(path) = path else {
        return ["none".into(), String::new()];
    };
    let kind = match path.kind {
        PathKind::Direct if !path.confirmed => "tried",
        PathKind::Direct => "direct",
        PathKind::Relayed => "relayed",
    };
    let over_tls = || "over TLS".to_owned();
    [
        kind.into(),
        path.endpoint.map_or_else(over_tls, |e| e.to_string()),
    ]
}

/// What the path carries whole.
fn mtu(path: Option<&MeshPath>) -> String {
    let found = path.and_then(|p| p.mtu).map(|bytes| bytes.to_string());
    match path.is_some_and(|p| p.fragmented) {
        true => format!("{} (cut)", found.unwrap_or_else(|| "small".into())),
        false => found.unwrap_or_default(),
    }
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

fn text(peers: &[MeshPeer]) -> String {
    if peers.is_empty() {
        return "It knows no other member.".into();
    }
    table(
        [
            "name",
            "path",
            "endpoint",
            "round trip",
            "mtu",
            "loss",
            "handshake",
            "received",
            "sent",
        ],
        peers.iter().map(|p| {
            let [kind, endpoint] = way(p.path.as_ref());
            let rtt = p.path.and_then(|path| path.rtt);
            [
                plain(&p.name),
                kind,
                endpoint,
                rtt.map(milliseconds).unwrap_or_default(),
                mtu(p.path.as_ref()),
                p.path
                    .and_then(|path| path.loss)
                    .map(|percent| format!("{percent} %"))
                    .unwrap_or_default(),
                p.handshake_age
                    .map_or_else(|| "no session".into(), |s| format!("{} ago", roughly(s))),
                size(p.received),
                size(p.sent),
            ]
        }),
    )
}

/// What `mesh ping` found.
#[derive(Debug, Serialize)]
struct Pinged {
    asked: usize,
    answered: usize,
    /// Microseconds.
    fastest: Option<u64>,
    mean: Option<u64>,
    slowest: Option<u64>,
    path: Option<MeshPath>,
}

impl Pinged {
    fn of(all: &[MeshPing]) -> Self {
        let times: Vec<u64> = all.iter().filter_map(|p| p.rtt).collect();
        let sum: u64 = times.iter().sum();
        Self {
            asked: all.len(),
            answered: times.len(),
            fastest: times.iter().min().copied(),
            mean: sum.checked_div(times.len() as u64),
            slowest: times.iter().max().copied(),
            path: all.iter().rev().find_map(|p| p.path),
        }
    }

    fn text(&self) -> String {
        let lost = self.asked - self.answered;
        let percent = lost * 100 / self.asked.max(1);
        let mut text = format!("{} asked, {lost} lost ({percent} %)", self.asked);
        if let (Some(fastest), Some(mean), Some(slowest)) = (self.fastest, self.mean, self.slowest)
        {
            let [fastest, mean, slowest] = [fastest, mean, slowest].map(milliseconds);
            text += &format!(", round trip {fastest} / {mean} / {slowest}");
        }
        let mtu = mtu(self.path.as_ref());
        if !mtu.is_empty() {
            text += &format!(", MTU {mtu}");
        }
        text
    }
}

async fn status(app: &App, args: StatusArgs) -> Result<()> {
    let Some(node) = &args.node else {
        return own_status(app, &args.dir).await;
    };
    let connection = connect(app).await?;
    let target = connection.target(node).await?;
    let mut stream = target.ask(&Request::Mesh).await?;
    let peers = match stream.next().await? {
        Some(Reply::Mesh(peers)) => peers,
        other => return Err(stream.odd(other.as_ref())),
    };
    app.print(&peers, || text(&peers))
}

async fn own_status(app: &App, at: &Dir) -> Result<()> {
    needs_root("holdfast mesh status of this machine")?;
    match member::status(&at.dir).await? {
        Some(peers) => app.print(&peers, || text(&peers)),
        None if member::joined(&at.dir).await?.is_some() => {
            Err(Exit::Failed.error("this machine's membership does not run: `holdfast mesh up`"))
        }
        None => Err(Exit::Failed.error("this machine has not joined: name a node")),
    }
}

async fn down(app: &App, at: &Dir) -> Result<()> {
    needs_root("holdfast mesh down")?;
    let ran = join::down(&at.dir).await?;
    app.print(&serde_json::json!({ "ran": ran }), || match ran {
        true => "Down: interface and routes are gone.".into(),
        false => "It did not run.".into(),
    })
}

async fn ping(app: &App, args: PingArgs) -> Result<()> {
    let connection = connect(app).await?;
    let request = Request::MeshPing {
        member: args.to.clone(),
        count: args.count,
    };
    let target = connection.target(&args.from).await?;
    let mut stream = target.ask(&request).await?;
    let mut all = vec![];
    loop {
        match stream.next().await? {
            Some(Reply::Ping(answer)) => {
                let [kind, endpoint] = way(answer.path.as_ref());
                let took = answer.rtt.map_or_else(|| "no answer".into(), milliseconds);
                app.say(&format!("{}: {took} ({kind} {endpoint})", args.to));
                all.push(answer);
            }
            None => break,
            other => return Err(stream.odd(other.as_ref())),
        }
    }
    let pinged = Pinged::of(&all);
    app.print(&pinged, || pinged.text())?;
    if pinged.answered == 0 {
        let text = format!(
            "{} does not answer {}; `holdfast mesh status {}` shows its paths",
            args.to, args.from, args.from
        );
        return Err(Exit::Unreachable.error(text));
    }
    Ok(())
}

/// Runs a verb.
pub async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Status(args) => status(app, args).await,
        Verb::Ping(args) => ping(app, args).await,
        Verb::Up(at) => {
            needs_root("holdfast mesh up")?;
            member::run(&at.dir, env!("CARGO_PKG_VERSION")).await
        }
        Verb::Down(at) => down(app, &at).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_round_trips_are_counted() {
        let ping = |rtt| MeshPing { rtt, path: None };
        let pinged = Pinged::of(&[
            ping(Some(1500)),
            ping(None),
            ping(Some(2500)),
            ping(Some(500)),
        ]);
        assert_eq!(
            pinged.text(),
            "4 asked, 1 lost (25 %), round trip 0.50 ms / 1.50 ms / 2.50 ms"
        );
        assert_eq!(Pinged::of(&[ping(None)]).text(), "1 asked, 1 lost (100 %)");
    }
}
