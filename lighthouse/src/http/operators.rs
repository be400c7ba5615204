//! What operators call.

use super::App;
use super::body::{JsonBody, Named};
use super::caller::Operator;
use crate::refusal::Refusal;
use crate::registry::Live;
use axum::Json;
use axum::extract::State;
use holdfast_core::api::{GrantStatus, GrantUpload, NodeEntry};
use holdfast_core::documents::{DocumentSet, Right};
use holdfast_core::names::{GrantId, NodeName};
use serde_json::{Value, json};
use std::sync::Arc;

type Answer<T> = Result<Json<T>, Refusal>;
type Shared = State<Arc<App>>;

fn done() -> Answer<Value> {
    Ok(Json(json!({ "ok": true })))
}

/// `PUT /v1/documents`
pub async fn put_documents(
    State(app): Shared,
    caller: Operator,
    JsonBody(set): JsonBody<DocumentSet>,
) -> Answer<Value> {
    caller.needs(&app, Right::All)?;
    app.registry.put_documents(set).await?;
    done()
}

/// `PUT /v1/grants/ID`
pub async fn put_grant(
    State(app): Shared,
    caller: Operator,
    Named(id): Named<GrantId>,
    JsonBody(upload): JsonBody<GrantUpload>,
) -> Answer<Value> {
    caller.needs(&app, Right::All)?;
    app.registry.put_grant(&id, upload.grant).await?;
    done()
}

/// `GET /v1/grants`
pub async fn grants(State(app): Shared, caller: Operator) -> Answer<Vec<GrantStatus>> {
    caller.needs(&app, Right::Look)?;
    app.registry.grants().await.map(Json)
}

/// `GET /v1/nodes`
pub async fn nodes(State(app): Shared, caller: Operator) -> Answer<Vec<NodeEntry>> {
    caller.needs(&app, Right::Look)?;
    let handshakes = app.mesh.handshakes();
    Ok(Json(app.registry.nodes(|key, mesh_key| Live {
        handshake_age: handshakes.get(mesh_key).map(|age| age.as_secs()),
        standing: app.board.stands(key),
    })))
}

/// `POST /v1/members/NAME/forget`
pub async fn forget(
    State(app): Shared,
    caller: Operator,
    Named(name): Named<NodeName>,
) -> Answer<Value> {
    caller.needs(&app, Right::All)?;
    app.registry.forget(&name).await?;
    done()
}
