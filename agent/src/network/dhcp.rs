//! DHCPv4 on one interface, for ever (mozim).

use super::plan::{Lease, Link};
use crate::backoff::Backoff;
use mozim::{DhcpV4Client, DhcpV4Config, DhcpV4Lease, DhcpV4State};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What DHCP says of an interface.
#[derive(Debug)]
pub enum News {
    /// A lease, new or renewed.
    Leased(Box<Lease>),
    /// The lease has run out.
    Expired,
}

fn plain(lease: &DhcpV4Lease) -> Lease {
    Lease {
        address: lease.yiaddr,
        mask: lease.subnet_mask,
        gateways: lease.gateways.clone().unwrap_or_default(),
        routes: lease
            .classless_routes
            .iter()
            .flatten()
            .map(|r| (r.destination, r.prefix_length, r.router))
            .collect(),
        dns: lease.dns_srvs.clone().unwrap_or_default(),
        ntp: lease.ntp_srvs.clone().unwrap_or_default(),
        mtu: lease.mtu,
    }
}

/// When an interface's lease runs out; it outlives the task that got the lease, as the address
/// does.
#[derive(Debug, Clone, Default)]
pub struct Expiry(Arc<Mutex<Option<Instant>>>);

impl Expiry {
    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: no address of a lease is in use.
    pub fn set(&self, at: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn left(&self, now: Instant) -> Duration {
        self.get()
            .map_or(Duration::MAX, |t| t.saturating_duration_since(now))
    }

    /// Whether it has run out; told once.
    fn ran_out(&self, now: Instant) -> bool {
        let out = self.get().is_some_and(|t| t <= now);
        if out {
            self.set(None);
        }
        out
    }
}

/// Runs until nobody listens any more. An error of the protocol begins anew with a growing
/// pause; the address stays in use until its lease has run out.
pub async fn run(link: Link, host_name: Option<String>, news: mpsc::Sender<News>, expiry: Expiry) {
    let mut pauses = Backoff::secs(1, 64);
    loop {
        if let Err(e) = life(&link, host_name.as_deref(), &news, &mut pauses, &expiry).await {
            tracing::warn!(interface = link.name, "DHCP: {e}");
        }
        if expiry.ran_out(Instant::now()) {
            let _ = news.send(News::Expired).await;
        }
        if news.is_closed() {
            return;
        }
        tokio::time::sleep(pauses.pause()).await;
    }
}

async fn life(
    link: &Link,
    host_name: Option<&str>,
    news: &mpsc::Sender<News>,
    pauses: &mut Backoff,
    expiry: &Expiry,
) -> Result<(), mozim::DhcpError> {
    let mut config = DhcpV4Config::new(&link.name);
    config
        .set_iface_index(link.index)
        .set_iface_mac_raw(&link.mac)?;
    config.use_mac_as_client_id();
    if let Some(name) = host_name {
        config.set_host_name(name);
    }
    let mut client = DhcpV4Client::init(config, None).await?;
    loop {
        let left = expiry.left(Instant::now());
        let state = tokio::select! {
            state = client.run() => state?,
            () = news.closed() => return Ok(()),
            // A second past the end, so that the library's own timers come first.
            () = tokio::time::sleep(left.saturating_add(Duration::from_secs(1))) => return Ok(()),
        };
        if let DhcpV4State::Done(lease) = state {
            tracing::info!(interface = link.name, address = %lease.yiaddr, seconds = lease.lease_time_sec, "DHCP lease");
            let lasts = Duration::from_secs(lease.lease_time_sec.into());
            expiry.set(Some(Instant::now() + lasts));
            pauses.reset();
            if news
                .send(News::Leased(Box::new(plain(&lease))))
                .await
                .is_err()
            {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_runs_out_whichever_task_got_it() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let expiry = Expiry::default();
        assert!(expiry.left(now) == Duration::MAX && !expiry.ran_out(now));
        expiry.clone().set(Some(now + second));
        assert!(expiry.left(now) == second && !expiry.ran_out(now));
        assert!(expiry.left(now + 2 * second).is_zero());
        assert!(expiry.ran_out(now + second) && !expiry.ran_out(now + second));
    }
}
