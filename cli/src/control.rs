//! A stream to a node: spliced by the lighthouse, TLS between the operator's key and the node's
//! inside it, frames inside that ([`holdfast_core::control`]).

use crate::app::say;
use crate::exit::Exit;
use crate::lighthouse::{Connection, explain};
use crate::nodes::Which;
use crate::words::plain;
use anyhow::{Context as _, Result};
use holdfast_client::{ClientError, LighthouseClient, Stream};
use holdfast_core::control::{ALPN, MAX_FRAME, Reply, Request};
use holdfast_core::grant::VerifiedMember;
use holdfast_core::keys::PublicKey;
use holdfast_core::names::NodeName;
use holdfast_core::status::NodeStatus;
use holdfast_tls::{ClientStream, client_config, connect, pin_mismatch};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// A node that says nothing for this long is taken for gone; nodes report progress more often.
const SILENCE: Duration = Duration::from_secs(120);
/// For what a node answers at once.
const QUICK: Duration = Duration::from_secs(30);
/// Each of several lighthouses has so long to lead to a node.
const TURN: Duration = Duration::from_secs(10);

/// What is needed to reach one node again and again.
pub struct Target<'a> {
    connection: &'a Connection,
    name: NodeName,
    key: PublicKey,
    /// Through which lighthouse it was reached last.
    via: AtomicUsize,
}

/// An open control stream.
pub struct NodeStream {
    name: NodeName,
    tls: ClientStream<Stream>,
}

/// Why there is no stream through a lighthouse.
enum Way {
    /// It says that it has none, or does not answer.
    None(anyhow::Error),
    /// It gave one, which does not lead to the node.
    Astray(anyhow::Error),
}

impl Connection {
    /// The node that is meant, its key taken from its verified record.
    pub async fn target(&self, which: &Which) -> Result<Target<'_>> {
        Ok(self.target_of(&self.node(which).await?))
    }

    /// A member verified before.
    pub fn target_of(&self, member: &VerifiedMember) -> Target<'_> {
        Target {
            connection: self,
            name: member.record.name.clone(),
            key: member.record.signing_key,
            via: AtomicUsize::new(0),
        }
    }
}

async fn write_frame(to: &mut (impl AsyncWrite + Unpin), request: &Request) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(request)?;
    let len = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    to.write_all(&len.to_be_bytes()).await?;
    to.write_all(&bytes).await?;
    to.flush().await
}

/// The next frame; none when the stream ended between two.
async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Reply>> {
    let mut len = [0; 4];
    if from.read(&mut len[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut len[1..]).await?;
    let len = u32::from_be_bytes(len);
    if len > MAX_FRAME {
        anyhow::bail!("a frame of {len} bytes came; {MAX_FRAME} are the most");
    }
    let mut bytes = vec![0; len as usize];
    from.read_exact(&mut bytes).await?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .context("a frame that is no reply: is the node's version newer than this holdfast?")
}

/// A refusal in the node's own words, as an error with its exit code.
fn refusal(name: &NodeName, kind: &str, message: &str) -> anyhow::Error {
    let exit = match kind {
        "denied" | "bad-bundle" => Exit::Refused,
        _ => Exit::Failed,
    };
    exit.error(format!("{name} said: {}", plain(message)))
}

impl Target<'_> {
    /// The node's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// The lighthouse through which the node was reached last.
    pub fn via(&self) -> &LighthouseClient {
        let via = self.connection.all().nth(self.via.load(Ordering::Relaxed));
        via.unwrap_or(&self.connection.client)
    }

    /// A stream through the first lighthouse that leads to the node itself: one that says so, and
    /// leads nowhere or elsewhere, costs no more than its turn.
    async fn stream(&self) -> Result<ClientStream<Stream>> {
        let all: Vec<_> = self.connection.named().collect();
        let begin = self.via.load(Ordering::Relaxed);
        let patience = if all.len() > 1 { TURN } else { QUICK };
        let mut first = None;
        let mut astray = vec![];
        for at in (0..all.len()).map(|i| (begin + i) % all.len()) {
            let (name, lighthouse) = all[at];
            let error = match timeout(patience, self.through(lighthouse)).await {
                Ok(Ok(stream)) => {
                    self.via.store(at, Ordering::Relaxed);
                    for (name, why) in astray {
                        say(&format!("note: lighthouse {name} leads nowhere: {why}"));
                    }
                    return Ok(stream);
                }
                Ok(Err(Way::None(error))) => error,
                Ok(Err(Way::Astray(error))) => {
                    astray.push((name, error.to_string()));
                    error
                }
                Err(_) => {
                    let text = format!(
                        "{} did not answer within {} s",
                        self.name,
                        patience.as_secs()
                    );
                    astray.push((name, text.clone()));
                    Exit::Unreachable.error(text)
                }
            };
            first = first.or(Some(error));
        }
        Err(first.unwrap_or_else(|| explain(ClientError::NoAddress)))
    }

    /// To the node, through one lighthouse.
    async fn through(&self, lighthouse: &LighthouseClient) -> Result<ClientStream<Stream>, Way> {
        let name = &self.name;
        let stream = lighthouse.control(name).await;
        let stream = stream.map_err(|e| Way::None(explain(e)))?;
        let config = client_config(Some(&self.connection.identity), self.key, &[ALPN])
            .map_err(|e| Way::None(e.into()))?;
        let led = connect(stream, config).await;
        led.map_err(|e| Way::Astray(match pin_mismatch(&e) {
            Some(mismatch) => Exit::Refused.error(format!(
                "what answers for {name} is not that node: {mismatch}. The lighthouse, or someone behind it, leads elsewhere"
            )),
            None => Exit::Unreachable.error(format!("the stream to {name} broke: {e}")),
        }))
    }

    /// Opens a stream and asks.
    pub async fn ask(&self, request: &Request) -> Result<NodeStream> {
        let name = &self.name;
        let mut tls = self.stream().await?;
        write_frame(&mut tls, request)
            .await
            .map_err(|e| Exit::Unreachable.error(format!("the stream to {name} broke: {e}")))?;
        Ok(NodeStream {
            name: name.clone(),
            tls,
        })
    }

    /// The node's account of itself.
    pub async fn status(&self) -> Result<NodeStatus> {
        let ask = async {
            let mut stream = self.ask(&Request::Status).await?;
            match stream.next().await? {
                Some(Reply::Status(status)) => Ok(*status),
                other => Err(stream.odd(other.as_ref())),
            }
        };
        timeout(QUICK, ask).await.map_err(|_| {
            Exit::Unreachable.error(format!(
                "{} did not answer within {} s",
                self.name,
                QUICK.as_secs()
            ))
        })?
    }
}

impl NodeStream {
    /// The next reply; none after `Done`. A refusal is an error.
    pub async fn next(&mut self) -> Result<Option<Reply>> {
        let name = self.name.clone();
        let reply = timeout(SILENCE, self.next_however_late()).await;
        reply.map_err(|_| {
            Exit::Unreachable.error(format!("{name} said nothing for {} s", SILENCE.as_secs()))
        })?
    }

    /// As [`Self::next`], for streams that may be silent for long (`logs -f`).
    pub async fn next_however_late(&mut self) -> Result<Option<Reply>> {
        let name = &self.name;
        match read_frame(&mut self.tls).await {
            Ok(Some(Reply::Done)) => Ok(None),
            Ok(Some(Reply::Failed { kind, message })) => Err(refusal(name, &kind, &message)),
            Ok(Some(reply)) => Ok(Some(reply)),
            Ok(None) => {
                Err(Exit::Unreachable.error(format!("{name} closed the stream before it was done")))
            }
            Err(error) if refused_by_tls(&error) => {
                Err(Exit::Refused.error(format!("{name} does not know this operator's key")))
            }
            Err(error) => {
                Err(Exit::Unreachable.error(format!("the stream to {name} broke: {error:#}")))
            }
        }
    }

    /// Waits for `Done`.
    pub async fn done(&mut self) -> Result<()> {
        match self.next().await? {
            None => Ok(()),
            other => Err(self.odd(other.as_ref())),
        }
    }

    /// The error for a reply that does not belong here.
    pub fn odd(&self, reply: Option<&Reply>) -> anyhow::Error {
        anyhow::anyhow!(
            "{} answered {reply:?}, which does not fit the question",
            self.name
        )
    }

    /// The raw stream, after `Tunnel`.
    pub fn into_raw(self) -> ClientStream<Stream> {
        self.tls
    }
}

/// In TLS 1.3 a server's refusal of our key comes as an alert in place of its first answer.
fn refused_by_tls(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        let text = e.to_string();
        text.contains("received fatal alert")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn frames_are_read_whole_bounded_and_ended() {
        let (mut a, mut b) = duplex(1 << 16);
        let reply = serde_json::to_vec(&Reply::Text("x".into())).unwrap();
        a.write_all(&(reply.len() as u32).to_be_bytes())
            .await
            .unwrap();
        a.write_all(&reply).await.unwrap();
        assert_eq!(
            read_frame(&mut b).await.unwrap(),
            Some(Reply::Text("x".into()))
        );

        a.write_all(&(MAX_FRAME + 1).to_be_bytes()).await.unwrap();
        assert!(
            read_frame(&mut b)
                .await
                .unwrap_err()
                .to_string()
                .contains("most")
        );

        let (a, mut b) = duplex(64);
        drop(a);
        assert_eq!(read_frame(&mut b).await.unwrap(), None);

        let (mut a, mut b) = duplex(64);
        a.write_all(&[0, 0]).await.unwrap();
        drop(a);
        assert!(read_frame(&mut b).await.is_err());
    }

    #[tokio::test]
    async fn a_request_is_one_frame() {
        let (mut a, mut b) = duplex(1 << 16);
        write_frame(&mut a, &Request::History).await.unwrap();
        let mut bytes = vec![0; 4 + 9];
        b.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"\0\0\0\x09\"history\"");
    }

    #[test]
    fn a_nodes_no_is_no_failure_of_the_way() {
        let name = "n1".parse().unwrap();
        assert_eq!(
            crate::exit::code_of(&refusal(&name, "bad-bundle", "older")),
            4
        );
        assert_eq!(crate::exit::code_of(&refusal(&name, "busy", "x")), 1);
    }
}
