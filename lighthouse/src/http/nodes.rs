//! What nodes call.

use super::App;
use super::body::{JsonBody, SHORT};
use super::caller::{Insider, Keyed, Member, Moderate};
use crate::refusal::Refusal;
use crate::registry::unix_now;
use axum::Json;
use axum::extract::{Query, State};
use holdfast_core::api::{
    ApiErrorKind, JoinReply, JoinRequest, MemberList, Offer, OfferRequest, RelayReply, RelayRequest,
};
use holdfast_core::documents::DocumentSet;
use holdfast_core::signed::Signed;
use holdfast_core::status::NodeStatus;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Longest long poll.
const MAX_WAIT: u64 = 60;

type Answer<T> = Result<Json<T>, Refusal>;
type Shared = State<Arc<App>>;

/// `GET /v1/health`
pub async fn health() -> Json<Value> {
    Json(json!({ "ok": true }))
}

/// `GET /v1/documents`
pub async fn documents(State(app): Shared, _: Keyed) -> Json<DocumentSet> {
    Json(app.registry.held().set.clone())
}

/// `POST /v1/offer`
pub async fn offer(
    State(app): Shared,
    caller: Moderate,
    JsonBody(request): JsonBody<OfferRequest, SHORT>,
) -> Answer<Offer> {
    app.registry.offer(&request, caller.key).await.map(Json)
}

/// `POST /v1/join`
pub async fn join(
    State(app): Shared,
    caller: Moderate,
    JsonBody(request): JsonBody<JoinRequest, SHORT>,
) -> Answer<JoinReply> {
    app.registry
        .join(&request.member, caller.key)
        .await
        .inspect_err(|refusal| {
            tracing::warn!(source = %caller.source, reason = refusal.error.message, "join refused");
        })?;
    Ok(Json(JoinReply {
        members: app.registry.members(),
        documents: app.registry.held().set.clone(),
        time: unix_now(),
    }))
}

/// Of `GET /v1/members`.
#[derive(Deserialize)]
pub struct Poll {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait: u64,
}

/// `GET /v1/members`
pub async fn members(State(app): Shared, _: Insider, Query(poll): Query<Poll>) -> Json<MemberList> {
    let wait = Duration::from_secs(poll.wait.min(MAX_WAIT));
    Json(app.registry.members_after(poll.after, wait).await)
}

/// `POST /v1/relay`
pub async fn relay(
    State(app): Shared,
    caller: Member,
    JsonBody(request): JsonBody<RelayRequest, SHORT>,
) -> Answer<RelayReply> {
    let own = app.registry.by_name(&caller.name)?.record;
    if own.signing_key != caller.key {
        return Err(Refusal::denied("another key has this member's name"));
    }
    let channel = app.mesh.channel(own.mesh_key, request.peer);
    channel.map(Json).ok_or_else(|| {
        let text = format!("{} is no member that this one may reach", request.peer);
        Refusal::new(ApiErrorKind::NotFound, text)
    })
}

/// `PUT /v1/status`
pub async fn put_status(
    State(app): Shared,
    caller: Member,
    JsonBody(status): JsonBody<Signed<NodeStatus>>,
) -> Answer<Value> {
    app.registry.put_status(status, caller.key).await?;
    Ok(Json(json!({ "ok": true })))
}
