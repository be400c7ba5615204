//! Who calls: decided from the key of the TLS connection, once for each request.

use super::App;
use crate::limits::Place;
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

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub source: SocketAddr,
    /// The key that it proved to hold.
    pub key: Option<PublicKey>,
    /// Which place among all connections it has.
    pub place: Arc<Place>,
}

fn peer(parts: &Parts) -> Result<Peer, Refusal> {
    // Put there by the accept loop.
    parts
        .extensions
        .get::<Peer>()
        .cloned()
        .ok_or_else(|| Refusal::denied("no connection"))
}

/// Anyone with a key.
pub struct Keyed {
    pub key: PublicKey,
    pub source: SocketAddr,
    place: Arc<Place>,
}

impl Keyed {
    /// It turned out to be no stranger: the connection stays as long as it likes.
    fn known(&self) -> Result<(), Refusal> {
        if self.place.belongs_to(self.key) {
            return Ok(());
        }
        Err(busy("too many connections with this key"))
    }
}

fn busy(text: &str) -> Refusal {
    Refusal::new(ApiErrorKind::Busy, text)
}

impl FromRequestParts<Arc<App>> for Keyed {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Refusal> {
        let Peer { source, key, place } = peer(parts)?;
        let key = key.ok_or_else(|| {
            Refusal::denied("this call needs a key: none was shown in the TLS handshake")
        })?;
        Ok(Self { key, source, place })
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
        let Keyed { key, source, .. } = Keyed::from_request_parts(parts, app).await?;
        if app.rates.join(source.ip()) {
            return Ok(Self { key, source });
        }
        Err(busy(
            "too many joins from this address; try again in some seconds",
        ))
    }
}

/// Anyone with a key who reads documents, in moderation: behind one address there may be a whole
/// site whose lighthouse is new to it.
pub struct Reader;

impl FromRequestParts<Arc<App>> for Reader {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let caller = Keyed::from_request_parts(parts, app).await?;
        let moderate = match app.registry.who(&caller.key) {
            Who::Operator(_) => caller.known().map(|()| true)?,
            Who::Member(_) => caller.known().map(|()| app.rates.read(caller.key))?,
            _ => app.rates.documents(caller.source.ip()),
        };
        if moderate {
            return Ok(Self);
        }
        Err(busy(
            "documents are asked for too often; try again in some seconds",
        ))
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
        let caller = Keyed::from_request_parts(parts, app).await?;
        let key = caller.key;
        match app.registry.who(&key) {
            Who::Operator(name) => caller.known().map(|()| Self { key, name }),
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
        let caller = Keyed::from_request_parts(parts, app).await?;
        let key = caller.key;
        match app.registry.who(&key) {
            Who::Member(name) => caller.known().map(|()| Self { key, name }),
            Who::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::denied(format!(
                "{key} is no member's key: join first"
            ))),
        }
    }
}

/// A member that gives an account of itself, in moderation: each is written to the disk. Decided
/// before the body is read.
pub struct Accounted {
    pub key: PublicKey,
}

impl FromRequestParts<Arc<App>> for Accounted {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let Member { key, .. } = Member::from_request_parts(parts, app).await?;
        if app.rates.status(key) {
            return Ok(Self { key });
        }
        Err(busy(
            "too many accounts from this node; try again in some seconds",
        ))
    }
}

/// A member in good standing, or an operator.
pub struct Insider {
    pub key: PublicKey,
    /// It is a member.
    pub member: bool,
}

impl FromRequestParts<Arc<App>> for Insider {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        if let Ok(operator) = Operator::from_request_parts(parts, app).await {
            return Ok(Self {
                key: operator.key,
                member: false,
            });
        }
        let key = Member::from_request_parts(parts, app).await?.key;
        Ok(Self { key, member: true })
    }
}
