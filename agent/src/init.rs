//! What the agent asks of init: one connection a request, so that a slow one delays no other.

use anyhow::{Context as _, bail};
use holdfast_core::image::ServiceSpec;
use holdfast_core::ipc::{BootInfo, InitReply, InitRequest, SOCKET, ServiceState};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// An orderly stop of services is the longest thing that init does before it answers.
const LIMIT: Duration = Duration::from_secs(120);
const LONGEST_REPLY: u64 = 1024 * 1024;

/// Where init listens.
#[derive(Debug, Clone)]
pub struct Init {
    socket: PathBuf,
    /// What is told of the boot where PID 1 is another's.
    stand_in: Option<Box<BootInfo>>,
}

impl Default for Init {
    fn default() -> Self {
        Self {
            socket: SOCKET.into(),
            stand_in: None,
        }
    }
}

impl Init {
    /// Another socket, for tests.
    #[cfg(test)]
    pub fn at(socket: PathBuf) -> Self {
        Self {
            socket,
            stand_in: None,
        }
    }

    /// On a machine whose PID 1 is no Holdfast init: it is asked nothing.
    pub fn of_others(boot: BootInfo) -> Self {
        Self {
            socket: SOCKET.into(),
            stand_in: Some(Box::new(boot)),
        }
    }

    async fn exchange(&self, request: &InitRequest) -> anyhow::Result<InitReply> {
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .with_context(|| format!("init at {}", self.socket.display()))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut reply = String::new();
        BufReader::new(stream.take(LONGEST_REPLY))
            .read_line(&mut reply)
            .await?;
        if reply.is_empty() {
            bail!("init closed the connection without an answer");
        }
        serde_json::from_str(&reply).context("init's answer does not parse")
    }

    /// Asks; a refusal is an error in init's words.
    ///
    /// # Errors
    /// When init cannot be reached or refuses.
    pub async fn ask(&self, request: InitRequest) -> anyhow::Result<InitReply> {
        if let Some(boot) = &self.stand_in {
            match request {
                InitRequest::Boot => return Ok(InitReply::Boot(boot.clone())),
                other => bail!("this machine's init is not Holdfast's: {other:?}"),
            }
        }
        let reply = tokio::time::timeout(LIMIT, self.exchange(&request))
            .await
            .context("init did not answer in time")??;
        match reply {
            InitReply::Refused(why) => bail!("init refused: {why}"),
            other => Ok(other),
        }
    }

    /// The boot that is running.
    ///
    /// # Errors
    /// As [`Init::ask`].
    pub async fn boot(&self) -> anyhow::Result<BootInfo> {
        match self.ask(InitRequest::Boot).await? {
            InitReply::Boot(info) => Ok(*info),
            other => bail!("init answered {other:?} when asked about the boot"),
        }
    }

    /// All services.
    ///
    /// # Errors
    /// As [`Init::ask`].
    pub async fn services(&self) -> anyhow::Result<Vec<ServiceState>> {
        match self.ask(InitRequest::Services).await? {
            InitReply::Services(list) => Ok(list),
            other => bail!("init answered {other:?} when asked about services"),
        }
    }

    /// Starts a service, or replaces it when its spec changed.
    ///
    /// # Errors
    /// As [`Init::ask`].
    pub async fn start(&self, service: ServiceSpec) -> anyhow::Result<()> {
        self.ask(InitRequest::StartService { service })
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn refusals_come_in_inits_words_and_silence_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, "\"commit\"\n");
            stream
                .write_all(b"{\"refused\":\"no trial runs\"}\n")
                .await
                .unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            BufReader::new(stream).read_line(&mut line).await.unwrap();
        });
        let init = Init::at(path);
        let refused = init.ask(InitRequest::Commit).await.unwrap_err();
        assert!(refused.to_string().contains("no trial runs"), "{refused}");
        let closed = init.ask(InitRequest::Heartbeat).await.unwrap_err();
        assert!(closed.to_string().contains("closed"), "{closed}");
        server.await.unwrap();
    }
}
