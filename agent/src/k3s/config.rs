//! k3s's `config.yaml` for a server (docs.k3s.io, "k3s server"): a function of what the join
//! settled.

use holdfast_core::cluster::AddressPlan;
use holdfast_core::state::Admission;
use ipnet::{IpNet, Ipv6Net};
use std::fmt::Write as _;
use std::net::Ipv6Addr;

/// Paths that the configuration names.
#[derive(Debug, Clone, Copy)]
pub struct Paths<'a> {
    /// The server token.
    pub token: &'a str,
    /// The token of agents.
    pub agent_token: &'a str,
    /// Name servers for pods.
    pub resolv_conf: &'a str,
}

/// Pods and services in IPv6: subnets 256 and 512 of the cluster's /48.
fn ranges6(plan: &AddressPlan) -> (IpNet, IpNet) {
    let at = |subnet: u128, len| {
        let base = Ipv6Addr::from_bits(plan.ula.network().to_bits() | (subnet << 64));
        IpNet::V6(Ipv6Net::new(base, len).unwrap_or_else(|_| Ipv6Net::from(base)))
    };
    (at(256, 56), at(512, 112))
}

struct Yaml(String);

impl Yaml {
    /// JSON strings are YAML strings.
    fn quoted(value: &str) -> String {
        serde_json::Value::from(value).to_string()
    }

    fn text(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.0, "{key}: {}", Self::quoted(value));
    }

    fn flag(&mut self, key: &str, value: bool) {
        let _ = writeln!(self.0, "{key}: {value}");
    }

    fn list(&mut self, key: &str, values: impl IntoIterator<Item = String>) {
        let lines: Vec<String> = values
            .into_iter()
            .map(|v| format!("  - {}\n", Self::quoted(&v)))
            .collect();
        if !lines.is_empty() {
            let _ = write!(self.0, "{key}:\n{}", lines.concat());
        }
    }
}

/// The text of `config.yaml`.
pub fn server(admission: &Admission, plan: &AddressPlan, paths: Paths<'_>) -> String {
    let (v4, v6) = (
        plan.address4(admission.index),
        plan.address6(admission.index),
    );
    let mut both = vec![v4.to_string()];
    let mut pods = vec![plan.pods.to_string()];
    let mut services = vec![plan.services.to_string()];
    if plan.dual_stack {
        let (pods6, services6) = ranges6(plan);
        both.push(v6.to_string());
        pods.push(pods6.to_string());
        services.push(services6.to_string());
    }
    let name = admission.name.to_string();
    let mut y = Yaml("# Written by holdfast-agent at every start of k3s.\n".into());
    y.text("node-name", &name);
    y.text("node-ip", &both.join(","));
    y.text("advertise-address", &v4.to_string());
    y.text("flannel-iface", holdfast_core::cluster::MESH_INTERFACE);
    y.list(
        "tls-san",
        [
            name.clone(),
            format!("{name}.{}.internal", admission.cluster),
            v4.to_string(),
            v6.to_string(),
        ],
    );
    y.text("cluster-cidr", &pods.join(","));
    y.text("service-cidr", &services.join(","));
    y.text("cluster-dns", &plan.cluster_dns().to_string());
    y.text("token-file", paths.token);
    y.text("agent-token-file", paths.agent_token);
    y.text("resolv-conf", paths.resolv_conf);
    y.text("write-kubeconfig-mode", "0600");
    y.flag("prefer-bundled-bin", true);
    y.list("node-label", admission.k3s.labels.iter().cloned());
    y.list("node-taint", admission.k3s.taints.iter().cloned());
    y.0
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use holdfast_core::cluster::{ClusterId, MeshIndex};
    use holdfast_core::grant::{Grant, Member, MemberRecord};
    use holdfast_core::keys::{MeshKey, PrivateKey};
    use holdfast_core::names::Role;
    use holdfast_core::signed::Signed;

    fn admission() -> Admission {
        let key = PrivateKey::from_bytes([1; 32]);
        let grant = Grant {
            cluster: ClusterId([1; 16]),
            id: "g1".parse().unwrap(),
            token: key.public(),
            role: Role::Server,
            groups: vec![],
            name: None,
            names: None,
            first: MeshIndex::FIRST_NODE,
            last: MeshIndex::LAST,
            uses: 1,
            not_after: 0,
        };
        let record = MemberRecord {
            cluster: grant.cluster,
            grant: grant.id.clone(),
            name: "s1".parse().unwrap(),
            index: MeshIndex::FIRST_NODE,
            mesh_key: MeshKey([4; 32]),
            signing_key: key.public(),
            counter: 1,
            via: None,
            own: None,
        };
        Admission {
            cluster: "demo".parse().unwrap(),
            cluster_id: grant.cluster,
            dual_stack: false,
            roots: vec![],
            name: record.name.clone(),
            role: Role::Server,
            index: record.index,
            member: Member {
                record: Signed::sign(&record, &key).unwrap(),
                grant: Signed::sign(&grant, &key).unwrap(),
            },
            lighthouses: vec![],
            network: Default::default(),
            wifi: None,
            k3s: holdfast_core::state::K3s {
                labels: vec!["site=home: \"x\"".into()],
                ..Default::default()
            },
            seed_scrubbed: true,
            other: Default::default(),
        }
    }

    const PATHS: Paths<'_> = Paths {
        token: "/t",
        agent_token: "/a",
        resolv_conf: "/r",
    };

    #[test]
    fn a_server_gets_its_mesh_addresses_and_the_clusters_ranges() {
        let a = admission();
        let plan = AddressPlan::new(a.cluster_id, false);
        let text = server(&a, &plan, PATHS);
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line:?} in\n{text}");
        has("node-name: \"s1\"");
        has(&format!("node-ip: \"{}\"", plan.address4(a.index)));
        has("flannel-iface: \"hf0\"");
        has(&format!("cluster-dns: \"{}\"", plan.cluster_dns()));
        has("  - \"s1.demo.internal\"");
        // What a seed says cannot break out of its line.
        has(r#"  - "site=home: \"x\"""#);
        assert!(!text.contains("node-taint"));
    }

    /// The builder refuses them in recipes: a drop-in would win over this file.
    #[test]
    fn no_recipe_may_say_what_the_agent_says() {
        let mut a = admission();
        a.k3s.taints.push("x=y:NoSchedule".into());
        let plan = AddressPlan::new(a.cluster_id, true);
        let text = server(&a, &plan, PATHS);
        let keys = text
            .lines()
            .filter(|l| !l.starts_with([' ', '#']))
            .filter_map(|l| l.split_once(':'));
        let mut seen = 0;
        for (key, _) in keys {
            seen += 1;
            assert!(holdfast_core::image::K3S_OWN_KEYS.contains(&key), "{key}");
        }
        assert!(seen > 10);
    }

    #[test]
    fn dual_stack_ranges_lie_in_the_clusters_prefix() {
        let a = admission();
        let plan = AddressPlan::new(a.cluster_id, true);
        let (pods, services) = ranges6(&plan);
        for net in [pods, services] {
            assert!(IpNet::V6(plan.ula).contains(&net), "{net}");
            assert!(!net.contains(&std::net::IpAddr::V6(plan.address6(a.index))));
        }
        assert!(server(&a, &plan, PATHS).contains(&format!("{},{pods}", plan.pods)));
    }
}
