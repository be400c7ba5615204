use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// How long QEMU may take to open its control socket and to answer; its main loop is rarely busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// QEMU's control socket: JSON, one object a line (QEMU Machine Protocol specification).
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

fn fail(command: &str, message: impl std::fmt::Display) -> Error {
    Error::Qmp {
        command: command.to_owned(),
        message: message.to_string(),
    }
}

impl Qmp {
    /// Connects as soon as the socket is there, and negotiates.
    pub(crate) fn connect(path: &Path, mut alive: impl FnMut() -> bool) -> Result<Self> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline || !alive() => {
                    return Err(fail("connect", error));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        stream
            .set_read_timeout(Some(ANSWER_LIMIT))
            .map_err(|e| fail("connect", e))?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
        };
        let greeting = qmp.read("greeting")?;
        if greeting.get("QMP").is_none() {
            return Err(fail("greeting", greeting));
        }
        qmp.execute("qmp_capabilities", Value::Null)?;
        Ok(qmp)
    }

    fn read(&mut self, command: &str) -> Result<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(fail(command, "QEMU closed the socket")),
            Ok(_) => {
                serde_json::from_str(&line).map_err(|e| fail(command, format!("{e} in {line:?}")))
            }
            Err(error) => Err(fail(command, error)),
        }
    }

    /// Runs a command and returns what it returns; events that come in between are passed over.
    ///
    /// # Errors
    /// QEMU's own error text, or that of the socket.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        writeln!(self.reader.get_mut(), "{request}").map_err(|e| fail(command, e))?;
        loop {
            let mut answer = self.read(command)?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(fail(
                    command,
                    error["desc"].as_str().unwrap_or("unknown error"),
                ));
            }
        }
    }
}
