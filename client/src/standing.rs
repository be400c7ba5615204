//! A node's standing connection: the way to it while the mesh is down.

use crate::error::ClientError;
use crate::transport::{LighthouseClient, Stream};
use holdfast_core::api::STANDING;
use std::io::{Error, ErrorKind};
use std::time::Duration;
use tokio::io::{
    AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, split,
};
use tokio::time::timeout;

/// Silence after which either side gives up (the lighthouse pings every 20 s).
const SILENCE: Duration = Duration::from_secs(60);
/// Longest line, in bytes.
const MAX_LINE: u64 = 256;

/// What the lighthouse announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandingEvent {
    /// Somebody wants a control stream: open [`LighthouseClient::splice`] with this id.
    Open(String),
}

/// An open standing connection. Dropping it closes it.
pub struct Standing {
    lines: BufReader<ReadHalf<Stream>>,
    answers: WriteHalf<Stream>,
}

impl LighthouseClient {
    /// Opens the standing connection. Nodes only.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn standing(&self) -> Result<Standing, ClientError> {
        let (read, write) = split(self.upgrade("/v1/standing", STANDING).await?);
        Ok(Standing {
            lines: BufReader::new(read),
            answers: write,
        })
    }
}

impl Standing {
    /// The next event; answers pings meanwhile. Not cancel-safe.
    ///
    /// # Errors
    /// When the connection ends, breaks, or was silent for a minute: open another.
    pub async fn next(&mut self) -> Result<StandingEvent, Error> {
        loop {
            let mut line = String::new();
            let silent = |_| Error::new(ErrorKind::TimedOut, "the lighthouse fell silent");
            let mut bounded = (&mut self.lines).take(MAX_LINE);
            if timeout(SILENCE, bounded.read_line(&mut line))
                .await
                .map_err(silent)??
                == 0
            {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let bad = || Error::new(ErrorKind::InvalidData, format!("not understood: {line:?}"));
            match line.strip_suffix('\n').ok_or_else(bad)? {
                "ping" => {
                    self.answers.write_all(b"pong\n").await?;
                    self.answers.flush().await?;
                }
                other => {
                    let id = other.strip_prefix("open ").ok_or_else(bad)?;
                    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
                        return Err(bad());
                    }
                    return Ok(StandingEvent::Open(id.into()));
                }
            }
        }
    }
}
