//! Init's socket: one JSON object a line, answered in order (`holdfast_core::ipc`). The kernel keeps
//! everyone but root away from it.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result};
use holdfast_core::ipc::{InitReply, InitRequest};

/// The longest request, in bytes: a service with its environment has a few kB.
const REQUEST_MAX: usize = 64 * 1024;
/// More would be a leak in the only client there is.
const CLIENTS_MAX: usize = 16;

/// The socket and those connected to it.
pub struct Server {
    listener: UnixListener,
    clients: Vec<Client>,
}

struct Client {
    stream: UnixStream,
    pending: Vec<u8>,
    gone: bool,
}

/// Binds a listening socket that only root can reach.
pub fn listen(path: &str) -> Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).with_context(|| format!("bind {path}"))?;
    std::fs::set_permissions(Path::new(path), std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("guard {path}"))?;
    listener
        .set_nonblocking(true)
        .with_context(|| format!("configure {path}"))?;
    Ok(listener)
}

impl Server {
    /// Serves on `path`.
    pub fn bind(path: &str) -> Result<Self> {
        Ok(Self {
            listener: listen(path)?,
            clients: Vec::new(),
        })
    }

    /// What to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.clients.iter().map(|c| c.stream.as_fd()))
    }

    /// Takes in what has come and answers it.
    pub fn serve(&mut self, mut handle: impl FnMut(InitRequest) -> InitReply) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < CLIENTS_MAX && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client {
                    stream,
                    pending: Vec::new(),
                    gone: false,
                });
            }
        }
        for client in &mut self.clients {
            client.take_in();
            while let Some(end) = client.pending.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = client.pending.drain(..=end).collect();
                let reply = match serde_json::from_slice(&line) {
                    Ok(request) => handle(request),
                    Err(error) => InitReply::Refused(format!("not understood: {error}")),
                };
                client.answer(&reply);
            }
        }
        self.clients.retain(|client| !client.gone);
    }
}

impl Client {
    fn take_in(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.gone = true,
                Ok(n) => {
                    self.pending.extend_from_slice(&buffer[..n]);
                    if self.pending.len() <= REQUEST_MAX {
                        continue;
                    }
                    self.gone = true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.gone = true,
            }
            return;
        }
    }

    fn answer(&mut self, reply: &InitReply) {
        let Ok(mut line) = serde_json::to_vec(reply) else {
            self.gone = true;
            return;
        };
        line.push(b'\n');
        // A client that does not read its answers has lost interest.
        if self.stream.write_all(&line).is_err() {
            self.gone = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    #[test]
    fn requests_in_pieces_and_nonsense_are_answered_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut server = Server::bind(path.to_str().unwrap()).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"\"heart").unwrap();
        server.serve(|_| InitReply::Ok);
        client
            .write_all(b"beat\"\nnonsense\n\"services\"\n")
            .unwrap();
        let mut seen = Vec::new();
        server.serve(|request| {
            seen.push(request);
            InitReply::Ok
        });
        assert_eq!(seen, [InitRequest::Heartbeat, InitRequest::Services]);
        let mut lines = BufReader::new(&client).lines().map(|l| l.unwrap());
        let replies: Vec<InitReply> = (0..3)
            .map(|_| serde_json::from_str(&lines.next().unwrap()).unwrap())
            .collect();
        assert!(
            matches!(
                &replies[..],
                [InitReply::Ok, InitReply::Refused(_), InitReply::Ok]
            ),
            "{replies:?}"
        );
    }

    #[test]
    fn an_endless_line_ends_the_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut server = Server::bind(path.to_str().unwrap()).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        client.set_nonblocking(true).unwrap();
        for _ in 0..200 {
            let _ = (&client).write(&[b'x'; 4096]);
            server.serve(|_| InitReply::Ok);
        }
        assert_eq!(server.descriptors().count(), 1);
    }
}
