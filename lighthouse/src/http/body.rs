//! JSON bodies: bounded in length and time, refused in words.

use crate::refusal::Refusal;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use holdfast_core::api::ApiErrorKind;
use http::request::Parts;
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use std::str::FromStr;
use std::time::Duration;

/// Longest JSON body, in bytes: documents of a large cluster take some hundred kB.
const LONGEST: usize = 4 << 20;
/// Longest JSON body of all but documents: a record and its grant take some kB, and so does what a
/// node says of itself.
pub const SHORT: usize = 64 << 10;
/// A body must have come by then.
const TIME: Duration = Duration::from_secs(30);

/// A JSON body of at most `MAX` bytes.
pub struct JsonBody<T, const MAX: usize = LONGEST>(pub T);

fn malformed(text: String) -> Refusal {
    Refusal::new(ApiErrorKind::Malformed, text)
}

impl<S: Send + Sync, T: DeserializeOwned, const MAX: usize> FromRequest<S> for JsonBody<T, MAX> {
    type Rejection = Refusal;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Refusal> {
        let whole = Limited::new(request.into_body(), MAX).collect();
        let bytes = tokio::time::timeout(TIME, whole)
            .await
            .map_err(|_| malformed(format!("the body did not come within {} s", TIME.as_secs())))?
            .map_err(|e| malformed(format!("the body: {e} (at most {MAX} bytes)")))?
            .to_bytes();
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|e| malformed(format!("the body does not parse: {e}")))
    }
}

/// The one variable part of a path, parsed.
pub struct Named<T>(pub T);

impl<S: Send + Sync, T> FromRequestParts<S> for Named<T>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|e| malformed(e.body_text()))?;
        text.parse()
            .map(Self)
            .map_err(|e: T::Err| malformed(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_bounded_by_its_call() {
        let read = async |bytes: &'static str| {
            JsonBody::<String, 8>::from_request(Request::new(Body::from(bytes)), &()).await
        };
        assert_eq!(read("\"123456\"").await.ok().unwrap().0, "123456");
        let refusal = read("\"1234567\"").await.err().unwrap();
        assert_eq!(refusal.error.kind, ApiErrorKind::Malformed);
        assert!(refusal.error.message.contains("at most 8 bytes"));
    }
}
