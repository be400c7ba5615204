//! One request: addresses in order, answers parsed, refusals told apart.

use crate::error::{Attempt, ClientError, chain};
use holdfast_core::api::ApiError;
use holdfast_core::keys::PublicKey;
use holdfast_tls::{Identity, client_config, pin_mismatch};
use reqwest::header::{CONNECTION, UPGRADE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, redirect};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A raw stream, made by an HTTP upgrade; both directions, tokio's traits.
pub type Stream = reqwest::Upgraded;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For calls that the lighthouse answers at once.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is held in memory, in bytes: a wide cluster's 16,376 members take about 20 MB.
const MAX_ANSWER: usize = 32 << 20;
/// Longest explanation of a refusal that is kept, in characters.
const MAX_MESSAGE: usize = 500;

/// One lighthouse, and who we are to it.
#[derive(Debug)]
pub struct LighthouseClient {
    pub(crate) http: reqwest::Client,
    addresses: Vec<String>,
    key: PublicKey,
    /// Tried first: where the last answer came from, or the one after an address whose connection
    /// broke.
    last_good: AtomicUsize,
}

impl LighthouseClient {
    /// `addresses` are `host:port`, tried in order; `key` is the one that the lighthouse must
    /// hold; `identity` is shown to it.
    ///
    /// # Errors
    /// [`ClientError::NoAddress`], [`ClientError::Identity`], [`ClientError::Setup`].
    pub fn new(
        addresses: Vec<String>,
        key: PublicKey,
        identity: Option<&Identity>,
    ) -> Result<Self, ClientError> {
        if addresses.is_empty() {
            return Err(ClientError::NoAddress);
        }
        let tls = client_config(identity, key, &[b"http/1.1"])?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(20))
            .build()
            .map_err(|e| ClientError::Setup(chain(&e)))?;
        Ok(Self {
            http,
            addresses,
            key,
            last_good: AtomicUsize::new(0),
        })
    }

    /// The pinned key.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// After a connection to `address` that was made and broke, or gave no answer in time: the
    /// next call begins with another address, since this one may take connections for ever and
    /// answer none. This call may have had its effect: it is the caller's to repeat.
    fn distrust(&self, address: &str) {
        if let Some(at) = self.addresses.iter().position(|a| a == address) {
            self.last_good
                .store((at + 1) % self.addresses.len(), Ordering::Relaxed);
        }
    }

    /// Sends what `build` makes to the first address that takes a connection.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<(String, Response), ClientError> {
        let n = self.addresses.len();
        let first = self.last_good.load(Ordering::Relaxed);
        let mut failed = vec![];
        let mut wrong = None;
        for i in (0..n).map(|i| (first + i) % n) {
            let address = &self.addresses[i];
            let request = self
                .http
                .request(method.clone(), format!("https://{address}{path}"));
            let error = match build(request).send().await {
                Ok(response) => {
                    self.last_good.store(i, Ordering::Relaxed);
                    return Ok((address.clone(), response));
                }
                Err(error) => error.without_url(),
            };
            if let Some(mismatch) = pin_mismatch(&error) {
                wrong = Some(ClientError::WrongKey {
                    address: address.clone(),
                    expected: self.key,
                    mismatch: Box::new(mismatch.clone()),
                });
            } else if error.is_connect() {
                failed.push(Attempt {
                    address: address.clone(),
                    reason: chain(&error),
                });
            } else {
                self.distrust(address);
                return Err(ClientError::Broken {
                    address: address.clone(),
                    reason: chain(&error),
                });
            }
        }
        Err(wrong.unwrap_or(ClientError::Unreachable(failed)))
    }

    /// A call with a JSON body (or none) and a JSON answer.
    pub(crate) async fn call<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        timeout: Duration,
    ) -> Result<A, ClientError> {
        let (address, response) = self
            .send(method, path, |r| {
                let r = r.timeout(timeout);
                match body {
                    Some(body) => r.json(body),
                    None => r,
                }
            })
            .await?;
        let status = response.status().as_u16();
        let read = async { read_all(&address, accepted(&address, response).await?).await };
        let bytes = read.await.inspect_err(|e| {
            if matches!(e, ClientError::Broken { .. }) {
                self.distrust(&address);
            }
        })?;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::Unexpected {
            address,
            status,
            body: format!("{e} in {}", beginning(&bytes)),
        })
    }

    /// Turns a request into a raw stream.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upgrade(&self, path: &str, token: &str) -> Result<Stream, ClientError> {
        let begun = self.last_good.load(Ordering::Relaxed);
        // No timeout on the request itself: it would end the stream too.
        let sent = self.send(Method::GET, path, |r| {
            r.header(CONNECTION, "Upgrade").header(UPGRADE, token)
        });
        let late = |_| {
            // The call began with it. Was it a later one, its turn comes at the next.
            self.distrust(&self.addresses[begun]);
            ClientError::Unreachable(vec![Attempt {
                address: self.addresses.join(", "),
                reason: format!("no answer within {} s", CALL_TIMEOUT.as_secs()),
            }])
        };
        let (address, response) = tokio::time::timeout(CALL_TIMEOUT, sent)
            .await
            .map_err(late)??;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(&address, response).await);
        }
        response.upgrade().await.map_err(|e| ClientError::Broken {
            address,
            reason: chain(&e),
        })
    }
}

/// The response if it is a success.
pub(crate) async fn accepted(address: &str, response: Response) -> Result<Response, ClientError> {
    if response.status().is_success() {
        Ok(response)
    } else {
        Err(refusal(address, response).await)
    }
}

async fn refusal(address: &str, response: Response) -> ClientError {
    let status = response.status().as_u16();
    // The request itself may have no timeout.
    let late = || ClientError::Broken {
        address: address.into(),
        reason: format!("no explanation within {} s", CALL_TIMEOUT.as_secs()),
    };
    let read = tokio::time::timeout(CALL_TIMEOUT, read_all(address, response)).await;
    let bytes = match read.unwrap_or_else(|_| Err(late())) {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    match serde_json::from_slice::<ApiError>(&bytes) {
        Ok(mut error) => {
            // Shown, noted and reported: a foreign text of megabytes is none of a person's use.
            error.message = error.message.chars().take(MAX_MESSAGE).collect();
            ClientError::Api(error)
        }
        Err(_) => ClientError::Unexpected {
            address: address.into(),
            status,
            body: beginning(&bytes),
        },
    }
}

fn beginning(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(200).collect()
}

async fn read_all(address: &str, mut response: Response) -> Result<Vec<u8>, ClientError> {
    let broken = |reason| ClientError::Broken {
        address: address.into(),
        reason,
    };
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| broken(chain(&e)))? {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(broken(format!(
                "the answer is longer than {MAX_ANSWER} bytes"
            )));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
