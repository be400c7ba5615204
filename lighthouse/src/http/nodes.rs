//! What nodes call.

use super::App;
use super::body::{JsonBody, SHORT};
use super::caller::{Accounted, Insider, Member, Moderate, Reader};
use crate::refusal::Refusal;
use crate::registry::{Listing, unix_now};
use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use holdfast_core::api::{
    ApiErrorKind, JoinReply, JoinRequest, Offer, OfferRequest, Refill, Refilled, RelayReply,
    RelayRequest,
};
use holdfast_core::documents::DocumentSet;
use holdfast_core::signed::Signed;
use holdfast_core::status::NodeStatus;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
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
pub async fn documents(State(app): Shared, _: Reader) -> Json<DocumentSet> {
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
    Query(asked): Query<Joining>,
    JsonBody(request): JsonBody<JoinRequest, SHORT>,
) -> Answer<JoinReply> {
    app.registry
        .join(&request.member, caller.key)
        .await
        .inspect_err(|refusal| {
            tracing::warn!(source = %caller.source, reason = refusal.error.message, "join refused");
        })?;
    let members = match asked.members {
        Wanted::All => app.registry.members_of(&caller.key, usize::MAX),
        Wanted::Few => app.registry.members_of(&caller.key, FEW),
    };
    Ok(Json(JoinReply {
        members,
        documents: app.registry.held().set.clone(),
        time: unix_now(),
    }))
}

/// Of `POST /v1/join`.
#[derive(Deserialize)]
pub struct Joining {
    #[serde(default)]
    members: Wanted,
}

/// Which members the answer to a join is to hold.
#[derive(Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    /// All that the new member is told of.
    #[default]
    All,
    /// None, if they are many: it asks for them afterwards anyway, and the list may have megabytes.
    Few,
}

/// More members than this are many.
const FEW: usize = 256;

/// Of `GET /v1/members`.
#[derive(Deserialize)]
pub struct Poll {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait: u64,
    #[serde(default)]
    delta: bool,
}

/// A list shorter than this is sent as one piece, in bytes.
const ONE_PIECE: usize = 64 << 10;

/// `GET /v1/members`
pub async fn members(State(app): Shared, caller: Insider, Query(poll): Query<Poll>) -> Response {
    let asked = Listing {
        after: poll.after,
        wait: Duration::from_secs(poll.wait.min(MAX_WAIT)),
        delta: poll.delta,
    };
    if caller.member && app.registry.costs_a_list(&asked) && !app.rates.list(caller.key) {
        let text = "whole lists are asked for too often; try again in some seconds";
        return Refusal::new(ApiErrorKind::Busy, text).into_response();
    }
    let parts = app.registry.listed(&caller.key, asked).await;
    let length: usize = parts.iter().map(Bytes::len).sum();
    let body = if length < ONE_PIECE {
        Body::from(parts.concat())
    } else {
        // The greater part is shared with others who are sent the same.
        Body::from_stream(stream::iter(parts.map(Ok::<_, std::convert::Infallible>)))
    };
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
    ];
    (headers, body).into_response()
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
    let allowed = app.registry.connected(own.mesh_key, request.peer);
    let channel = allowed.then(|| app.mesh.channel(own.mesh_key, request.peer));
    channel.flatten().map(Json).ok_or_else(|| {
        let text = format!("{} is no member that this one may reach", request.peer);
        Refusal::new(ApiErrorKind::NotFound, text)
    })
}

/// `POST /v1/refill`; a call counts as much as a join.
pub async fn refill(
    State(app): Shared,
    caller: Member,
    _: Moderate,
    JsonBody(refill): JsonBody<Refill>,
) -> Answer<Refilled> {
    let filled = app.registry.take_back(refill, &caller.name).await?;
    Ok(Json(filled))
}

/// `PUT /v1/status`
pub async fn put_status(
    State(app): Shared,
    caller: Accounted,
    JsonBody(status): JsonBody<Signed<NodeStatus>, SHORT>,
) -> Answer<Value> {
    app.registry.put_status(status, caller.key).await?;
    Ok(Json(json!({ "ok": true })))
}
