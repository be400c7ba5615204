//! The agent's heartbeat to init: sent only while both event loops turn.

use crate::init::Init;
use holdfast_core::ipc::InitRequest;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How often.
const EVERY: Duration = Duration::from_secs(5);
/// A loop that does not answer for so long hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What agent and init take of memory is logged first after a minute, then every hour.
const MEMORY: (u64, u64) = (60, 3600);

/// Resident memory in kB, from `/proc/PID/status` (proc(5)).
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn tell_memory() {
    let of = |path| {
        std::fs::read_to_string(path)
            .ok()
            .and_then(|s| resident(&s))
            .unwrap_or(0)
    };
    let (agent, init) = (of("/proc/self/status"), of("/proc/1/status"));
    tracing::info!("resident memory: agent {agent} kB, init {init} kB");
}

/// Beats for ever; `mesh` is the data plane's runtime.
pub async fn run(init: Init, mesh: Handle) {
    let mut next = Instant::now() + Duration::from_secs(MEMORY.0);
    loop {
        if Instant::now() >= next {
            tell_memory();
            next = Instant::now() + Duration::from_secs(MEMORY.1);
        }
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

#[cfg(test)]
mod tests {
    #[test]
    fn resident_memory_is_read() {
        assert_eq!(
            super::resident("Name:\tx\nVmRSS:\t   13060 kB\nThreads:\t5\n"),
            Some(13060)
        );
        assert_eq!(super::resident("Name:\tx\n"), None);
    }
}
