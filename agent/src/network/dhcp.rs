//! DHCPv4 on one interface, for ever (mozim).

use super::plan::{Lease, Link};
use crate::backoff::Backoff;
use mozim::{DhcpV4Client, DhcpV4Config, DhcpV4Lease, DhcpV4State};
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

/// Runs until nobody listens any more. An error of the protocol begins anew with a growing
/// pause; the address stays in use until its lease has run out.
pub async fn run(link: Link, host_name: Option<String>, news: mpsc::Sender<News>) {
    let mut pauses = Backoff::secs(1, 64);
    let mut expires: Option<Instant> = None;
    loop {
        if let Err(e) = life(
            &link,
            host_name.as_deref(),
            &news,
            &mut pauses,
            &mut expires,
        )
        .await
        {
            tracing::warn!(interface = link.name, "DHCP: {e}");
        }
        if expires.is_some_and(|t| t <= Instant::now()) {
            expires = None;
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
    expires: &mut Option<Instant>,
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
        let left = expires.map_or(Duration::MAX, |t| {
            t.saturating_duration_since(Instant::now())
        });
        let state = tokio::select! {
            state = client.run() => state?,
            () = news.closed() => return Ok(()),
            // A second past the end, so that the library's own timers come first.
            () = tokio::time::sleep(left.saturating_add(Duration::from_secs(1))) => return Ok(()),
        };
        if let DhcpV4State::Done(lease) = state {
            tracing::info!(interface = link.name, address = %lease.yiaddr, seconds = lease.lease_time_sec, "DHCP lease");
            *expires = Some(Instant::now() + Duration::from_secs(lease.lease_time_sec.into()));
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
