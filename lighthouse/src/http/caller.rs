//! Who calls: decided from the key of the TLS connection, once for each request.

use super::App;
use crate::refusal::Refusal;
use crate::registry::Who;
use axum::extract::FromRequestParts;
use holdfast_core::api::ApiErrorKind;
use holdfast_core::documents::Right;
use holdfast_core::keys::PublicKey;
use holdfast_core::names::{NodeName, OperatorName};
use http::request::Parts;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its address.
    pub source: SocketAddr,
    /// The key that it proved to hold.
    pub key: Option<PublicKey>,
}

fn peer(parts: &Parts) -> Result<Peer, Refusal> {
    // Put there by the accept loop.
    parts
        .extensions
        .get::<Peer>()
        .copied()
        .ok_or_else(|| Refusal::denied("no connection"))
}

/// Anyone with a key.
pub struct Keyed {
    pub key: PublicKey,
    pub source: SocketAddr,
}

impl FromRequestParts<Arc<App>> for Keyed {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Refusal> {
        let Peer { source, key } = peer(parts)?;
        let key = key.ok_or_else(|| {
            Refusal::denied("this call needs a key: none was shown in the TLS handshake")
        })?;
        Ok(Self { key, source })
    }
}

/// Anyone with a key, in moderation. Decided before the body is read: whoever asks too often does
/// not get so far.
pub struct Moderate {
    pub key: PublicKey,
    pub source: SocketAddr,
}

impl FromRequestParts<Arc<App>> for Moderate {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let Keyed { key, source } = Keyed::from_request_parts(parts, app).await?;
        if app.joins.allow(source.ip(), Instant::now()) {
            return Ok(Self { key, source });
        }
        let text = "too many joins from this address; try again in some seconds";
        Err(Refusal::new(ApiErrorKind::Busy, text))
    }
}

/// An operator.
pub struct Operator {
    pub key: PublicKey,
    pub name: OperatorName,
}

impl FromRequestParts<Arc<App>> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let Keyed { key, .. } = Keyed::from_request_parts(parts, app).await?;
        match app.registry.who(&key) {
            Who::Operator(name) => Ok(Self { key, name }),
            _ => Err(Refusal::denied(format!(
                "{key} is no operator's key in the operators document held here"
            ))),
        }
    }
}

impl Operator {
    /// Refuses unless the operator has `right`.
    pub fn needs(&self, app: &App, right: Right) -> Result<(), Refusal> {
        if app.registry.allows(&self.key, right) {
            return Ok(());
        }
        let right = format!("{right:?}").to_lowercase();
        Err(Refusal::denied(format!(
            "operator {} does not have the right {right:?}",
            self.name
        )))
    }
}

/// A member in good standing.
pub struct Member {
    pub key: PublicKey,
    pub name: NodeName,
}

impl FromRequestParts<Arc<App>> for Member {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let Keyed { key, .. } = Keyed::from_request_parts(parts, app).await?;
        match app.registry.who(&key) {
            Who::Member(name) => Ok(Self { key, name }),
            Who::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::denied(format!(
                "{key} is no member's key: join first"
            ))),
        }
    }
}

/// A member in good standing, or an operator.
pub struct Insider {
    pub key: PublicKey,
}

impl FromRequestParts<Arc<App>> for Insider {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let key = match Operator::from_request_parts(parts, app).await {
            Ok(operator) => operator.key,
            Err(_) => Member::from_request_parts(parts, app).await?.key,
        };
        Ok(Self { key })
    }
}
