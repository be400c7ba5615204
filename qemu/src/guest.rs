//! A client of the guest agent in a machine (QEMU: `docs/interop/qemu-ga.rst`).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// The port's name in the guest.
pub(crate) const PORT: &str = "org.qemu.guest_agent.0";
/// Never part of JSON: what came before is forgotten.
const SENTINEL: u8 = 0xff;

/// A conversation with the guest agent.
#[derive(Debug)]
pub struct GuestAgent {
    reader: BufReader<UnixStream>,
}

fn fail(command: &str, message: impl std::fmt::Display) -> Error {
    Error::Qmp {
        command: command.to_owned(),
        message: message.to_string(),
    }
}

impl GuestAgent {
    /// Connects, and waits `limit` at most for the agent to answer.
    pub(crate) fn connect(socket: &Path, limit: Duration) -> Result<Self> {
        let name = "guest-sync-delimited";
        let stream = UnixStream::connect(socket).map_err(|e| fail(name, e))?;
        let asked = stream.set_read_timeout(Some(limit));
        asked.map_err(|e| fail(name, e))?;
        let mut agent = Self {
            reader: BufReader::new(stream),
        };
        let hello = [SENTINEL];
        let sent = agent.reader.get_mut().write_all(&hello);
        sent.map_err(|e| fail(name, e))?;
        agent.send(name, json!({ "id": 4711 }))?;
        // Whatever an earlier conversation left stands before the sentinel.
        let mut before = Vec::new();
        let read = agent.reader.read_until(SENTINEL, &mut before);
        read.map_err(|e| fail(name, e))?;
        match agent.receive(name)? {
            answer if answer == json!(4711) => Ok(agent),
            other => Err(fail(name, other)),
        }
    }

    /// Sends a command and does not wait for an answer.
    ///
    /// # Errors
    /// That of the socket.
    pub fn send(&mut self, command: &str, arguments: Value) -> Result<()> {
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        writeln!(self.reader.get_mut(), "{request}").map_err(|e| fail(command, e))
    }

    /// Runs a command and returns what it returns.
    ///
    /// # Errors
    /// The agent's own words after its error class, or that of the socket.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.send(command, arguments)?;
        self.receive(command)
    }

    fn receive(&mut self, command: &str) -> Result<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => return Err(fail(command, "the socket was closed")),
            Ok(_) => {}
            Err(error) => return Err(fail(command, error)),
        }
        let mut answer: Value =
            serde_json::from_str(&line).map_err(|e| fail(command, format!("{e} in {line:?}")))?;
        if let Some(value) = answer.get_mut("return") {
            return Ok(value.take());
        }
        let error = &answer["error"];
        let word = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
        Err(fail(
            command,
            format!("{}: {}", word("class"), word("desc")),
        ))
    }
}
