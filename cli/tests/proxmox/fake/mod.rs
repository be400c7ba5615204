//! A FAKE of Proxmox VE, for tests: the part of its documented HTTP API that `holdfast proxmox` uses, on
//! loopback with TLS. It was written from the API's documentation and published source, and refuses what
//! those say the real one refuses: unknown parameters, `args` to tokens, long SMBIOS, missing privileges,
//! chunked uploads, wrong files. No real Proxmox was at hand: that the real one behaves so is not proven.

pub mod files;
pub mod machines;
pub mod rules;
pub mod state;
pub mod tasks;
pub mod upload;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, Response, StatusCode, header};
use hyper::ext::ReasonPhrase;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use state::{Reply, Seen, State};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio_rustls::TlsAcceptor;

/// The token that it takes.
pub const TOKEN: &str = "op@pve!holdfast=0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

pub struct Fake {
    pub port: u16,
    pub fingerprint: String,
    state: Arc<Mutex<State>>,
    _runtime: tokio::runtime::Runtime,
}

impl Fake {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["pve.example".into()]).unwrap();
        let certificate = made.cert.der().clone();
        let fingerprint = fingerprint(&certificate);
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let state = Arc::new(Mutex::new(State::new()));
        let router = Router::new().fallback(serve).with_state(state.clone());
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let service = TowerToHyperService::new(router);
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    }
                });
            }
        });
        Self {
            port,
            fingerprint,
            state,
            _runtime: runtime,
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn fingerprint(certificate: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(certificate);
    let parts: Vec<String> = digest.iter().map(|b| format!("{b:02X}")).collect();
    parts.join(":")
}

fn decoded(text: &str) -> String {
    let mut out = vec![];
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let hex: String = bytes.by_ref().take(2).map(char::from).collect();
            out.push(u8::from_str_radix(&hex, 16).unwrap());
        } else {
            out.push(if b == b'+' { b' ' } else { b });
        }
    }
    String::from_utf8(out).unwrap()
}

fn form(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|p| !p.is_empty());
    let pair = |p: &str| {
        let (k, v) = p.split_once('=').unwrap();
        (decoded(k), decoded(v))
    };
    pairs.map(pair).collect()
}

async fn serve(Shared(state): Shared<Arc<Mutex<State>>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Some(path) = head.uri.path().strip_prefix("/api2/json/") else {
        return answer(Reply::no(501, "no such uri"), false);
    };
    let authorized = header_of(&head.headers, &header::AUTHORIZATION)
        == Some(format!("PVEAPIToken={TOKEN}").as_str());
    if !authorized {
        return answer(Reply::no(401, "invalid token value!"), true);
    }
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        return answer(
            Reply::no(501, "chunked transfer encoding not supported"),
            true,
        );
    }
    let path: Vec<String> = path.split('/').map(decoded).collect();
    let mut params = form(head.uri.query().unwrap_or_default());
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let kind = header_of(&head.headers, &header::CONTENT_TYPE).unwrap_or_default();
    let mut file = None;
    if path.last().is_some_and(|p| p == "upload") {
        match upload::parse(kind, &body) {
            Ok((fields, bytes)) => {
                params.extend(fields);
                file = Some(bytes);
            }
            Err(why) => return answer(Reply::no(501, &why), true),
        }
    } else if !body.is_empty() {
        params.extend(form(&String::from_utf8_lossy(&body)));
    }
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let seen = Seen {
        method: head.method.as_str(),
        path: &path,
        params,
        file,
    };
    let makes = seen.method == "POST" && seen.path.last() == Some(&"qemu");
    let mut state = state.lock().unwrap();
    let old = state.old_messages;
    let reply = state.handle(seen);
    if makes && std::mem::take(&mut state.cut_next_create) {
        // The call had its effect; its answer never comes.
        drop(state);
        std::panic::resume_unwind(Box::new("cut on purpose"));
    }
    answer(reply, old)
}

fn header_of<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Older versions have their words in the reason phrase alone.
fn answer(reply: Reply, old: bool) -> Response<Body> {
    let (status, body, reason) = match reply {
        Reply::Data(data) => (200, json!({ "data": data }), None),
        Reply::No {
            status,
            message,
            errors,
        } => {
            let mut body = json!({ "data": null });
            if !old {
                body["message"] = json!(format!("{message}\n"));
            }
            if !errors.is_empty() {
                body["errors"] = json!(errors);
            }
            (status, body, Some(message.replace('\n', " ")))
        }
    };
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(reason) = reason {
        let phrase = ReasonPhrase::try_from(reason.into_bytes()).unwrap();
        response.extensions_mut().insert(phrase);
    }
    response
}
