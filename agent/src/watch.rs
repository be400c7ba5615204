//! The agent's heartbeat to init: sent only while both event loops turn.

use crate::init::Init;
use holdfast_core::ipc::InitRequest;
use std::time::Duration;
use tokio::runtime::Handle;

/// How often.
const EVERY: Duration = Duration::from_secs(5);
/// A loop that does not answer for so long hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Beats for ever; `mesh` is the data plane's runtime.
pub async fn run(init: Init, mesh: Handle) {
    loop {
        let turned = tokio::time::timeout(PATIENCE, mesh.spawn(async {})).await;
        match turned {
            Ok(Ok(())) => {
                if let Err(e) = init.ask(InitRequest::Heartbeat).await {
                    tracing::warn!("no heartbeat to init: {e:#}");
                }
            }
            _ => tracing::error!("the mesh's event loop hangs: no heartbeat"),
        }
        tokio::time::sleep(EVERY).await;
    }
}
