//! What is known of each uplink, put together: what DHCP or the seed says, the addresses that the
//! kernel made by itself, the name servers that routers tell of.

use super::addresses::lasting;
use super::netlink::Netlink;
use super::plan::Uplink;
use super::routers::Routers;
use super::{Port, RESOLV_CONF, Uplinks, Wanted};
use holdfast_core::cluster::AddressPlan;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::path::Path;
use tokio::sync::watch;

/// Keeps it, and tells of changes.
pub struct Told {
    uplinks: watch::Sender<Uplinks>,
    said: BTreeMap<String, (Port, Uplink)>,
    /// The last `resolv.conf`.
    written: Option<String>,
}

impl Told {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            uplinks: watch::Sender::new(Uplinks::new()),
            said: BTreeMap::new(),
            written: None,
        }
    }

    /// The uplinks in use.
    pub fn uplinks(&self) -> watch::Receiver<Uplinks> {
        self.uplinks.subscribe()
    }

    /// A link came up; what it had stays until it is told otherwise.
    pub fn came_up(&mut self, port: Port) {
        let name = port.name.clone();
        let held = self.said.entry(name);
        held.and_modify(|(p, _)| *p = port.clone())
            .or_insert((port, Uplink::default()));
    }

    /// What an interface was told to use.
    pub fn set(&mut self, port: &Port, uplink: Uplink) {
        self.said.insert(port.name.clone(), (port.clone(), uplink));
    }

    /// Tells of what holds now, where it is something else than before.
    ///
    /// # Errors
    /// When the kernel does not name its addresses, or `resolv.conf` cannot be written.
    pub async fn publish(
        &mut self,
        netlink: &Netlink,
        routers: &Routers,
        wanted: &Wanted,
    ) -> anyhow::Result<()> {
        let found: Vec<_> = netlink
            .addresses()
            .await?
            .iter()
            .filter_map(lasting)
            .collect();
        let now: Uplinks = self
            .said
            .iter()
            .map(|(name, (port, said))| {
                let advertised = match wanted.seed.dns.is_empty() {
                    true => routers.name_servers(port.index, name),
                    // The seed's come in the place of the network's.
                    false => vec![],
                };
                let whole = whole(said, port, &found, advertised, wanted.plan.as_ref());
                (name.clone(), whole)
            })
            .collect();
        let dns = resolv_conf(&now);
        self.uplinks.send_if_modified(|held| {
            let changed = *held != now;
            *held = now;
            changed
        });
        if self.written.as_ref() != Some(&dns) {
            write_resolv_conf(&dns).map_err(|e| anyhow::anyhow!("{RESOLV_CONF}: {e}"))?;
            self.written = Some(dns);
        }
        Ok(())
    }
}

/// `found`: all addresses that there are, by the interface's number. Of IPv4 an interface has what it
/// was told to use, and no IPv6 address is taken that others cannot reach it at.
fn whole(
    said: &Uplink,
    port: &Port,
    found: &[(u32, IpNet)],
    advertised: Vec<String>,
    plan: Option<&AddressPlan>,
) -> Uplink {
    let new = |net: &IpNet| {
        let IpNet::V6(v6) = net else { return false };
        let clusters = plan.is_some_and(|p| p.ula.contains(v6));
        !clusters && !said.addresses.iter().any(|a| a.addr() == net.addr())
    };
    let own = found.iter().filter(|(at, _)| *at == port.index);
    let mut made: Vec<IpNet> = own.map(|(_, net)| *net).filter(new).collect();
    made.sort_unstable();
    let mut whole = said.clone();
    whole.addresses.extend(made);
    whole.advertised = advertised;
    whole.came_up = port.came_up;
    whole
}

/// `resolv.conf` (resolver(5) reads three name servers): DHCP's and routers' in turn, so that none
/// crowds the others out. One of a link only is there where no other is: k3s would take servers of its
/// own making for its pods else.
fn resolv_conf(uplinks: &Uplinks) -> String {
    let each = || uplinks.values();
    let told: Vec<_> = each()
        .flat_map(|u| &u.dns)
        .map(ToString::to_string)
        .collect();
    let advertised: Vec<_> = each().flat_map(|u| &u.advertised).cloned().collect();
    let mut all = vec![];
    for place in 0..told.len().max(advertised.len()) {
        all.extend(told.get(place));
        all.extend(advertised.get(place));
    }
    let of_a_link = |server: &&String| server.starts_with("fe80:");
    if !all.iter().all(of_a_link) {
        all.retain(|server| !of_a_link(server));
    }
    let mut seen: Vec<&String> = vec![];
    for server in all {
        if !seen.contains(&server) && seen.len() < 3 {
            seen.push(server);
        }
    }
    seen.iter().map(|s| format!("nameserver {s}\n")).collect()
}

fn write_resolv_conf(text: &str) -> std::io::Result<()> {
    if let Some(folder) = Path::new(RESOLV_CONF).parent() {
        std::fs::create_dir_all(folder)?;
    }
    let fresh = format!("{RESOLV_CONF}.new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, RESOLV_CONF)?;
    // In the rescue system nothing has made the link yet; the real root is read-only and has it.
    let link = Path::new("/etc/resolv.conf");
    if std::fs::symlink_metadata(link).is_err() {
        let _ = std::os::unix::fs::symlink(RESOLV_CONF, link);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::cluster::{AddressPlan, ClusterId, MeshIndex};

    #[test]
    fn an_interface_has_what_it_was_told_and_what_the_kernel_made_of_ipv6() {
        let plan = AddressPlan::new(ClusterId([1; 16]), false);
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let said = Uplink {
            addresses: vec![net("192.0.2.7/24"), net("2001:db8:1::7/64")],
            ..Uplink::default()
        };
        let port = Port {
            name: "eth0".into(),
            index: 2,
            metric: 1026,
            came_up: 4,
        };
        let mesh = IpNet::new(plan.address6(MeshIndex::FIRST_NODE).into(), 64).unwrap();
        let found = [
            (2, net("192.0.2.7/24")),
            // Left by another program: not by what others are told to reach this machine.
            (2, net("192.0.2.8/24")),
            (2, net("2001:db8:2::9/64")),
            (2, net("2001:db8:1::7/128")),
            (2, net("fd00:1::9/64")),
            (2, mesh),
            (3, net("2001:db8:3::9/64")),
        ];
        let whole = whole(
            &said,
            &port,
            &found,
            vec!["2001:db8::53".into()],
            Some(&plan),
        );
        let all: Vec<_> = whole.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            all,
            [
                "192.0.2.7/24",
                "2001:db8:1::7/64",
                "2001:db8:2::9/64",
                "fd00:1::9/64"
            ]
        );
        assert_eq!((whole.came_up, whole.advertised.len()), (4, 1));
    }

    #[test]
    fn name_servers_of_both_families_are_asked_and_a_links_only_without_others() {
        let with = |dns: &[&str], advertised: &[&str]| {
            let up = Uplink {
                dns: dns.iter().map(|d| d.parse().unwrap()).collect(),
                advertised: advertised.iter().map(ToString::to_string).collect(),
                ..Uplink::default()
            };
            let conf = resolv_conf(&Uplinks::from([("eth0".into(), up)]));
            conf.replace("nameserver ", "").replace('\n', " ")
        };
        let link = "fe80::1%eth0";
        let v4 = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        assert_eq!(
            with(&v4, &["2001:db8::1"]),
            "192.0.2.1 2001:db8::1 192.0.2.2 "
        );
        assert_eq!(with(&[], &[link]), "fe80::1%eth0 ");
        assert_eq!(with(&v4[..1], &[link]), "192.0.2.1 ");
        assert_eq!(with(&[], &[link, "2001:db8::1"]), "2001:db8::1 ");
    }
}
