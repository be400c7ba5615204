//! Bundles in and out.

use super::App;
use super::body::Named;
use super::caller::{Insider, Operator};
use crate::blobs::range;
use crate::refusal::Refusal;
use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use holdfast_core::api::ApiErrorKind;
use holdfast_core::documents::Right;
use holdfast_core::keys::Digest;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a refused upload that are still read, and for how long.
const DRAIN: usize = 1 << 30;
const DRAIN_TIME: Duration = Duration::from_secs(60);

type Shared = State<Arc<App>>;

/// `GET` and `HEAD /v1/blobs/SHA256`
pub async fn get(
    State(app): Shared,
    _: Insider,
    Named(digest): Named<Digest>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let blob = app.blobs.get(&digest).await?;
    let len = blob.len;
    let asked = headers.get(RANGE).and_then(|v| v.to_str().ok());
    let part = match range(asked, len) {
        Ok(part) => part,
        Err(()) => {
            let place = [(CONTENT_RANGE, format!("bytes */{len}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, place).into_response());
        }
    };
    let (start, end) = part.unwrap_or((0, len));
    let stream = blob
        .read(start, end)
        .await
        .map_err(|e| Refusal::new(ApiErrorKind::Internal, format!("blob {digest}: {e}")))?;
    let fixed = [
        (ACCEPT_RANGES, "bytes".to_owned()),
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, (end - start).to_string()),
    ];
    let body = Body::from_stream(stream);
    Ok(match part {
        None => (StatusCode::OK, fixed, body).into_response(),
        Some(_) => {
            let place = [(CONTENT_RANGE, format!("bytes {start}-{}/{len}", end - 1))];
            (StatusCode::PARTIAL_CONTENT, fixed, place, body).into_response()
        }
    })
}

/// `PUT /v1/blobs/SHA256`
pub async fn put(
    State(app): Shared,
    caller: Operator,
    Named(digest): Named<Digest>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let mut body = request.into_body().into_data_stream();
    let stored = match caller.needs(&app, Right::Upgrade) {
        Ok(()) => app.blobs.put(&digest, &mut body).await,
        Err(refusal) => Err(refusal),
    };
    match stored {
        Ok(len) => Ok(Json(json!({ "ok": true, "len": len }))),
        Err(refusal) => {
            drain(body).await;
            Err(refusal)
        }
    }
}

/// Takes what is still coming, within bounds: a connection closed on unread bytes is reset, and
/// the client would never read why.
async fn drain(mut body: BodyDataStream) {
    let all = async {
        let mut left = DRAIN;
        while let Some(Ok(chunk)) = body.next().await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, all).await;
}
