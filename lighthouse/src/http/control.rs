//! Raw streams: operators to nodes, nodes' standing connections, datagrams where UDP is blocked.

use super::App;
use super::body::Named;
use super::caller::{Member, Operator};
use crate::refusal::Refusal;
use crate::registry::{Registry, Who};
use crate::splice::{BoxedStream, copy};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use holdfast_core::api::{ApiErrorKind, MESH_STREAM, SPLICE, STANDING};
use holdfast_core::keys::PublicKey;
use holdfast_core::names::NodeName;
use http::StatusCode;
use http::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use std::sync::Arc;

type Shared = State<Arc<App>>;

/// Answers 101 and gives the stream to `then`, which ends with the lighthouse.
fn upgrade<F: Future<Output = ()> + Send + 'static>(
    app: &App,
    mut request: Request,
    token: &'static str,
    then: impl FnOnce(BoxedStream) -> F + Send + 'static,
) -> Response {
    let upgraded = hyper::upgrade::on(&mut request);
    let mut running = app.running.clone();
    tokio::spawn(async move {
        let work = async {
            match upgraded.await {
                Ok(stream) => then(Box::new(TokioIo::new(stream))).await,
                Err(error) => tracing::debug!(%error, "no upgrade"),
            }
        };
        tokio::select! {
            () = work => {}
            _ = running.changed() => {}
        }
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, token)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

fn wants(request: &Request, token: &str) -> Result<(), Refusal> {
    let asked = request.headers().get(UPGRADE).and_then(|v| v.to_str().ok());
    if asked.is_some_and(|a| a.eq_ignore_ascii_case(token)) {
        return Ok(());
    }
    let text = format!("this call needs the header \"Upgrade: {token}\", not {asked:?}");
    Err(Refusal::new(ApiErrorKind::Malformed, text))
}

/// `GET /v1/control/NAME`
pub async fn control(
    State(app): Shared,
    caller: Operator,
    Named(name): Named<NodeName>,
    request: Request,
) -> Result<Response, Refusal> {
    wants(&request, SPLICE)?;
    let node = app.registry.by_name(&name)?;
    let (way, there) = match app.mesh.dial(&node).await {
        Ok(stream) => ("mesh", stream),
        Err(error) => {
            tracing::debug!(node = %name, %error, "not by mesh");
            (
                "standing",
                app.board
                    .ask(node.record.signing_key, name.as_str())
                    .await?,
            )
        }
    };
    tracing::info!(operator = %caller.name, node = %name, way, "control stream");
    Ok(upgrade(&app, request, SPLICE, move |here| async move {
        match copy(here, there).await {
            Ok((sent, received)) => {
                tracing::debug!(node = %name, sent, received, "control stream ended");
            }
            Err(error) => tracing::debug!(node = %name, %error, "control stream broke"),
        }
    }))
}

/// `GET /v1/splice/ID`
pub async fn splice(
    State(app): Shared,
    caller: Member,
    Named(id): Named<String>,
    request: Request,
) -> Result<Response, Refusal> {
    wants(&request, SPLICE)?;
    let waiting = app.board.answer(&id, &caller.key)?;
    Ok(upgrade(&app, request, SPLICE, move |stream| async move {
        if waiting.send(stream).is_err() {
            tracing::debug!(node = %caller.name, "nobody waits for the stream any more");
        }
    }))
}

/// `GET /v1/standing`
pub async fn standing(
    State(app): Shared,
    caller: Member,
    request: Request,
) -> Result<Response, Refusal> {
    wants(&request, STANDING)?;
    let own = app.clone();
    Ok(upgrade(&app, request, STANDING, move |stream| async move {
        let Member { key, name } = caller;
        tracing::info!(node = %name, "standing connection");
        let ended = own.board.serve(key, stream, out(&own.registry, &key)).await;
        tracing::info!(node = %name, error = ?ended.err().map(|e| e.to_string()), "standing connection ended");
    }))
}

/// `GET /v1/mesh`
pub async fn mesh(
    State(app): Shared,
    caller: Member,
    request: Request,
) -> Result<Response, Refusal> {
    wants(&request, MESH_STREAM)?;
    let own = app.registry.by_name(&caller.name)?.record;
    if own.signing_key != caller.key {
        return Err(Refusal::denied("another key has this member's name"));
    }
    let lighthouse = app.clone();
    Ok(upgrade(
        &app,
        request,
        MESH_STREAM,
        move |stream| async move {
            let name = caller.name;
            tracing::info!(node = %name, "mesh stream: no UDP there");
            let ended = tokio::select! {
                ended = lighthouse.mesh.carry(own.mesh_key, stream) => ended,
                () = out(&lighthouse.registry, &caller.key) => Ok(()),
            };
            tracing::info!(node = %name, error = ?ended.err().map(|e| e.to_string()), "mesh stream ended");
        },
    ))
}

/// Resolves once `key` is no member any more.
async fn out(registry: &Registry, key: &PublicKey) {
    let mut changes = registry.watch_standings();
    while matches!(registry.who(key), Who::Member(_)) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}
