//! The part that does IO.

use crate::answers::{self, BadAnswer, TaskStatus};
use crate::calls::{self, Call, Method};
use crate::names::Upid;
use crate::refusal::Refusal;
use crate::task::{Ended, LAST_LINES, Next, Watch};
use crate::token::Token;
use holdfast_tls::{Fingerprint, certificate_config};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, Response, redirect};
use serde_json::Value;
use std::time::Duration;

/// Proxmox's own port.
const PORT: u16 = 8006;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Proxmox itself gives a call 30 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer that is held in memory, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// Why a call gave no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made: {0}")]
    Setup(String),
    /// Nobody answers there, or not with TLS.
    #[error("{host} does not answer: {reason}")]
    Unreachable {
        /// The address.
        host: String,
        /// In words.
        reason: String,
    },
    /// The connection broke after the request was sent: the call may have had its effect.
    #[error("the connection to {host} broke: {reason}")]
    Broken {
        /// The address.
        host: String,
        /// In words.
        reason: String,
    },
    /// Proxmox said no.
    #[error("Proxmox said to {method:?} {path}: {refusal}")]
    Refused {
        /// Of the call.
        method: Method,
        /// Of the call.
        path: String,
        /// Its words.
        refusal: Refusal,
    },
    /// An answer that the API does not document.
    #[error(transparent)]
    Answer(#[from] BadAnswer),
    /// A task that Proxmox started failed.
    #[error("the task {kind} failed: {exit}{}", log.iter().map(|l| format!("\n  | {l}")).collect::<String>())]
    Task {
        /// e.g. `qmcreate`.
        kind: String,
        /// Its exit status in words.
        exit: String,
        /// Its output's last lines.
        log: Vec<String>,
    },
    /// A file of this machine.
    #[error("{what}: {source}")]
    Local {
        /// Which.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl ClientError {
    /// What Proxmox said, if it said no.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}

/// All causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text += &format!(": {words}");
        }
        next = cause.source();
    }
    text
}

/// One Proxmox host, and who we are to it.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    host: String,
    token: Token,
}

impl Client {
    /// `host` is a name or address, with a port unless it is 8006; `fingerprint` the certificate's,
    /// without it the system's roots decide.
    ///
    /// # Errors
    /// [`ClientError::Setup`].
    pub fn new(
        host: &str,
        token: Token,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Self, ClientError> {
        let setup = |e: &(dyn std::error::Error + 'static)| ClientError::Setup(chain(e));
        // For the system's roots; an error means that it is set already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(20));
        if let Some(fingerprint) = fingerprint {
            let config = certificate_config(fingerprint, &[b"http/1.1"]).map_err(|e| setup(&e))?;
            builder = builder.tls_backend_preconfigured(config);
        }
        let http = builder.build().map_err(|e| setup(&e))?;
        Ok(Self {
            http,
            host: with_port(host),
            token,
        })
    }

    /// `host:port`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The token, whose secret is not told.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    pub(crate) fn request(
        &self,
        call: &Call,
        with_query: bool,
    ) -> Result<RequestBuilder, ClientError> {
        let method = match call.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut url = format!("https://{}/api2/json{}", self.host, call.path);
        if with_query && !call.params.is_empty() {
            url += &format!("?{}", call.form());
        }
        let mut header = HeaderValue::from_str(&self.token.header())
            .map_err(|e| ClientError::Setup(e.to_string()))?;
        header.set_sensitive(true);
        Ok(self.http.request(method, url).header(AUTHORIZATION, header))
    }

    pub(crate) async fn answer(
        &self,
        call: &Call,
        sent: reqwest::Result<Response>,
    ) -> Result<Value, ClientError> {
        let broken = |e: reqwest::Error| ClientError::Broken {
            host: self.host.clone(),
            reason: chain(&e.without_url()),
        };
        let mut response = sent.map_err(|e| {
            if e.is_connect() {
                ClientError::Unreachable {
                    host: self.host.clone(),
                    reason: chain(&e.without_url()),
                }
            } else {
                broken(e)
            }
        })?;
        let status = response.status();
        let reason = response
            .extensions()
            .get::<hyper::ext::ReasonPhrase>()
            .map(|r| String::from_utf8_lossy(r.as_bytes()).into_owned());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(BadAnswer::new("an answer", &"longer than 16 MiB").into());
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(answers::data("an answer", &body)?);
        }
        let reason = reason.as_deref().or(status.canonical_reason());
        Err(ClientError::Refused {
            method: call.method,
            path: call.path.clone(),
            refusal: Refusal::read(status.as_u16(), reason, &body),
        })
    }

    /// Makes a call; the answer's `data`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call(&self, call: &Call) -> Result<Value, ClientError> {
        let in_query = matches!(call.method, Method::Get | Method::Delete);
        let mut request = self.request(call, in_query)?.timeout(CALL_TIMEOUT);
        if !in_query {
            request = request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(call.form());
        }
        self.answer(call, request.send().await).await
    }

    /// Makes a call and waits for the task that it starts, if it starts one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn run(&self, call: &Call) -> Result<Option<String>, ClientError> {
        let data = self.call(call).await?;
        match answers::task(&data)? {
            Some(task) => self.wait(&task).await,
            None => Ok(None),
        }
    }

    /// Waits for a task's end; what it warned of.
    ///
    /// # Errors
    /// [`ClientError::Task`] when it failed.
    pub async fn wait(&self, task: &Upid) -> Result<Option<String>, ClientError> {
        let mut watch = Watch::default();
        loop {
            let data = self.call(&calls::task_status(task)).await?;
            match watch.heard(&TaskStatus::read(&data)?) {
                Next::Wait(pause) => tokio::time::sleep(pause).await,
                Next::Over(Ended::Done) => return Ok(None),
                Next::Over(Ended::Warned(words)) => return Ok(Some(words)),
                Next::Over(Ended::Failed(exit)) => {
                    let log = match self.call(&calls::task_log(task)).await {
                        Ok(data) => answers::log(&data).unwrap_or_default(),
                        Err(e) => vec![format!("its log cannot be read: {e}")],
                    };
                    let more = log.len().saturating_sub(LAST_LINES);
                    return Err(ClientError::Task {
                        kind: task.kind().into(),
                        exit,
                        log: log.into_iter().skip(more).collect(),
                    });
                }
            }
        }
    }
}

/// `host` with Proxmox's port unless it has one; an IPv6 address with a port is in brackets.
fn with_port(host: &str) -> String {
    let host = host.trim_start_matches("https://").trim_end_matches('/');
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        return format!("[{host}]:{PORT}");
    }
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    if has_port {
        host.into()
    } else {
        format!("{host}:{PORT}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_get_proxmoxs_port() {
        for (given, wanted) in [
            ("pve.example", "pve.example:8006"),
            ("https://pve.example:443/", "pve.example:443"),
            ("192.0.2.1", "192.0.2.1:8006"),
            ("2001:db8::1", "[2001:db8::1]:8006"),
            ("[2001:db8::1]", "[2001:db8::1]:8006"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ] {
            assert_eq!(with_port(given), wanted, "{given}");
        }
    }
}
