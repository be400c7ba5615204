//! A lighthouse in the wrong hands: it holds its own keys, says what it likes, and forges nothing.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use holdfast_core::api::{ApiError, ApiErrorKind, SPLICE};
use holdfast_core::documents::DocumentSet;
use holdfast_lighthouse::LighthouseDir;
use holdfast_tls::{ClientAuth, Identity, accept, server_config};
use hyper::header::{CONNECTION, UPGRADE};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Serves a policy that another cluster's root signed.
    Unsigned,
    /// Serves the newest documents, lists nothing, takes nothing, leads to nobody, and says so.
    Refuses,
    /// Serves the newest documents, takes everything and drops it, says nothing of nodes; a control
    /// stream leads nowhere.
    Nowhere,
    /// As [`Nowhere`](Self::Nowhere), but all except the documents and control streams is never
    /// answered.
    Hangs,
}

struct Liar {
    lie: Lie,
    /// The cluster's directory on the operator's machine: it hears the news at once.
    cluster: PathBuf,
    foreign: DocumentSet,
    asked: Asked,
}

/// The calls that were made, as "METHOD PATH".
pub type Asked = Arc<Mutex<Vec<String>>>;

fn documents(cluster: &Path) -> DocumentSet {
    let bytes = std::fs::read(cluster.join("documents.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn json(value: &impl Serialize) -> Response {
    Body::from(serde_json::to_vec(value).unwrap()).into_response()
}

fn refusal(status: StatusCode, kind: ApiErrorKind, message: &str) -> Response {
    let error = ApiError {
        kind,
        message: message.into(),
        held: None,
    };
    (status, json(&error)).into_response()
}

/// 101, and nobody at the other end.
fn nowhere(mut request: Request) -> Response {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgraded.await.unwrap());
        let mut buffer = [0; 1024];
        while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, SPLICE)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn answer(State(liar): State<Arc<Liar>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    liar.asked.lock().unwrap().push(format!("{method} {path}"));
    let list = path == "/v1/nodes" || path == "/v1/grants";
    match (method, liar.lie) {
        (Method::GET, lie) if path == "/v1/documents" => {
            let mut set = documents(&liar.cluster);
            if lie == Lie::Unsigned {
                set.policy = liar.foreign.policy.clone();
            }
            json(&set)
        }
        (Method::GET, Lie::Nowhere | Lie::Hangs) if path.starts_with("/v1/control/") => {
            nowhere(request)
        }
        (Method::GET, Lie::Refuses) if list => json(&[(); 0]),
        (_, Lie::Hangs) => std::future::pending().await,
        (Method::GET, Lie::Nowhere) if list => refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            ApiErrorKind::Internal,
            "a \x1b[2Jlist",
        ),
        (_, Lie::Nowhere) => json(&serde_json::json!({ "ok": true })),
        _ => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            ApiErrorKind::Busy,
            "no room",
        ),
    }
}

/// Plays the lighthouse whose folder is `CLUSTER/lighthouse`, at `port`, until the runtime ends.
/// `foreign` are another cluster's documents.
pub async fn play(lie: Lie, cluster: &Path, port: u16, foreign: &Path) -> Asked {
    let keys = LighthouseDir::open(&cluster.join("lighthouse")).unwrap();
    let identity = Identity::from_key(&keys.keys().unwrap().tls).unwrap();
    let tls = server_config(&identity, &[b"http/1.1"], ClientAuth::Optional).unwrap();
    let asked = Asked::default();
    let liar = Liar {
        lie,
        cluster: cluster.into(),
        foreign: documents(foreign),
        asked: asked.clone(),
    };
    let router = Router::new().fallback(answer).with_state(Arc::new(liar));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, router) = (tls.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(stream) = accept(stream, tls).await else {
                    return;
                };
                // The caller may go at any moment.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
                    .with_upgrades()
                    .await;
            });
        }
    });
    asked
}
