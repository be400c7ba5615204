//! The API's routes ([`holdfast_core::api`]).

mod blobs;
mod body;
mod caller;
mod control;
mod nodes;
mod operators;

pub use caller::Peer;

use crate::blobs::Blobs;
use crate::mesh::MeshLink;
use crate::rate::Rates;
use crate::refusal::Refusal;
use crate::registry::Registry;
use crate::splice::Switchboard;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};
use holdfast_core::api::ApiErrorKind;
use std::sync::Arc;
use tokio::sync::watch;

/// Everything that handlers use.
#[derive(Debug)]
pub struct App {
    /// Members, grants, documents.
    pub registry: Arc<Registry>,
    /// Bundles.
    pub blobs: Blobs,
    /// Control streams.
    pub board: Switchboard,
    /// Bounds how often what is asked.
    pub rates: Rates,
    /// The way to nodes.
    pub mesh: MeshLink,
    /// Its sender goes with the lighthouse: raw streams end then.
    pub running: watch::Receiver<()>,
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/health", get(nodes::health))
        .route(
            "/v1/documents",
            get(nodes::documents).put(operators::put_documents),
        )
        .route("/v1/grants", get(operators::grants))
        .route("/v1/grants/{id}", put(operators::put_grant))
        .route("/v1/nodes", get(operators::nodes))
        .route("/v1/members/{name}/forget", post(operators::forget))
        .route("/v1/offer", post(nodes::offer))
        .route("/v1/join", post(nodes::join))
        .route("/v1/members", get(nodes::members))
        .route("/v1/relay", post(nodes::relay))
        .route("/v1/mesh", get(control::mesh))
        .route("/v1/refill", post(nodes::refill))
        .route("/v1/status", put(nodes::put_status))
        .route("/v1/blobs/{digest}", get(blobs::get).put(blobs::put))
        .route("/v1/control/{name}", get(control::control))
        .route("/v1/standing", get(control::standing))
        .route("/v1/splice/{id}", get(control::splice))
        .fallback(async || Refusal::new(ApiErrorKind::NotFound, "no such call in version 1"))
        .method_not_allowed_fallback(async || {
            Refusal::new(ApiErrorKind::Malformed, "this call takes another method")
        })
        // Handlers bound what they read themselves.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}
