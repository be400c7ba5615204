//! No, with its reason: what handlers return and clients get.

use crate::store::StoreError;
use axum::Json;
use axum::response::{IntoResponse, Response};
use holdfast_core::api::{ApiError, ApiErrorKind};
use holdfast_core::grant::MemberError;
use http::StatusCode;

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the client reads.
    pub error: ApiError,
    /// The disk is full: another status than for haste.
    full: bool,
}

impl Refusal {
    /// `message` says what to do, where something can be done.
    pub fn new(kind: ApiErrorKind, message: impl Into<String>) -> Self {
        Self {
            error: ApiError {
                kind,
                message: message.into(),
                held: None,
            },
            full: false,
        }
    }

    /// Older than what is held, which has `counter`.
    pub fn older(counter: u64, message: impl Into<String>) -> Self {
        let mut refusal = Self::new(ApiErrorKind::Older, message);
        refusal.error.held = Some(counter);
        refusal
    }

    /// The disk is full.
    pub fn full(message: impl Into<String>) -> Self {
        Self {
            full: true,
            ..Self::new(ApiErrorKind::Busy, message)
        }
    }

    /// Who may not do this.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(ApiErrorKind::Denied, message)
    }

    fn status(&self) -> StatusCode {
        match self.error.kind {
            ApiErrorKind::Malformed => StatusCode::BAD_REQUEST,
            ApiErrorKind::Denied
            | ApiErrorKind::GrantUnknown
            | ApiErrorKind::GrantExpired
            | ApiErrorKind::GrantRevoked
            | ApiErrorKind::GrantUsedUp
            | ApiErrorKind::RecordRefused
            | ApiErrorKind::Evicted => StatusCode::FORBIDDEN,
            ApiErrorKind::Taken | ApiErrorKind::Older => StatusCode::CONFLICT,
            ApiErrorKind::NotFound => StatusCode::NOT_FOUND,
            ApiErrorKind::Unreachable => StatusCode::BAD_GATEWAY,
            ApiErrorKind::Busy if self.full => StatusCode::INSUFFICIENT_STORAGE,
            ApiErrorKind::Busy => StatusCode::TOO_MANY_REQUESTS,
            ApiErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.error.kind == ApiErrorKind::Internal || self.full {
            tracing::error!(message = self.error.message, "a request failed");
        }
        (self.status(), Json(self.error)).into_response()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self::full(error.to_string()),
            StoreError::Contended(_) | StoreError::Behind(_) => {
                Self::new(ApiErrorKind::Busy, error.to_string())
            }
            _ => Self::new(ApiErrorKind::Internal, error.to_string()),
        }
    }
}

impl From<MemberError> for Refusal {
    fn from(error: MemberError) -> Self {
        let kind = match error {
            MemberError::Evicted(_) => ApiErrorKind::Evicted,
            MemberError::Revoked(_) => ApiErrorKind::GrantRevoked,
            _ => ApiErrorKind::RecordRefused,
        };
        Self::new(kind, error.to_string())
    }
}
