//! The gate.
use crate::node::Node;
use std::sync::Arc;
/// run
pub async fn run(_node: Arc<Node>) {}
