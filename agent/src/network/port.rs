//! An interface that is addressed, and what addresses it.

use super::plan::{Link, Mode};
use tokio::task::JoinHandle;

/// The interface that is addressed.
#[derive(Debug, Clone)]
pub(super) struct Port {
    /// Its name,
    pub name: String,
    /// and number.
    pub index: u32,
    /// Of its routes.
    pub metric: u32,
    /// As in [`super::Uplink`].
    pub came_up: u64,
}

/// What addresses an interface.
pub(super) struct Task {
    /// What it addresses,
    pub port: Port,
    /// and how.
    pub mode: Mode,
    /// DHCP, where it is used.
    pub running: Option<JoinHandle<()>>,
}

impl Task {
    /// Whether it goes on. Without a carrier it does not: once the link is back, which may be to
    /// another network, DHCP asks anew; the address stays until then. One that died is replaced.
    pub(super) fn holds(&self, link: Option<&Link>) -> bool {
        let alive = self.running.as_ref().is_none_or(|r| !r.is_finished());
        alive && link.is_some_and(|l| l.index == self.port.index && l.carrier)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_died_or_lost_its_carrier_begins_anew() {
        let link = |index, carrier| Link {
            index,
            name: "eth0".into(),
            mac: vec![],
            physical: true,
            wireless: false,
            up: true,
            carrier,
        };
        let task = |running| Task {
            port: Port {
                name: "eth0".into(),
                index: 2,
                metric: 1026,
                came_up: 1,
            },
            mode: Mode::Automatic,
            running,
        };
        let settled = task(None);
        assert!(settled.holds(Some(&link(2, true))));
        assert!(!settled.holds(Some(&link(2, false))));
        assert!(!settled.holds(Some(&link(3, true))) && !settled.holds(None));
        let dead = task(Some(tokio::spawn(async {})));
        tokio::task::yield_now().await;
        assert!(!dead.holds(Some(&link(2, true))));
        let alive = task(Some(tokio::spawn(std::future::pending())));
        assert!(alive.holds(Some(&link(2, true))));
    }
}
