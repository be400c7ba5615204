//! Which names the cluster has, from what this node verified: one table behind `/etc/hosts` and
//! the resolver.

use crate::lighthouse::known::Known;
use crate::node;
use holdfast_core::cluster::{AddressPlan, MeshIndex};
use holdfast_core::names::{ClusterName, NodeName};
use holdfast_core::state::StateDoc;
use ipnet::IpNet;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A member's mesh addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Its A record.
    pub v4: Ipv4Addr,
    /// Its AAAA record.
    pub v6: Ipv6Addr,
}

/// Names of the zone `CLUSTER.internal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// `CLUSTER.internal`, in lower case and without the last dot.
    pub zone: String,
    /// By their first label, in lower case.
    pub names: BTreeMap<String, Addresses>,
    /// Who gets answers: members, and pods on this node.
    pub asked_by: Vec<IpNet>,
}

impl Table {
    /// An empty table of `cluster`.
    pub fn new(cluster: &ClusterName, plan: &AddressPlan) -> Self {
        Self {
            zone: format!("{cluster}.internal"),
            names: BTreeMap::new(),
            asked_by: vec![plan.mesh4.into(), plan.mesh6.into(), plan.pods.into()],
        }
    }

    /// The table that `doc` yields; none before the join. A name belongs to this node, then to a
    /// lighthouse (a root signed that), then to the member with the lowest signing key, so that
    /// all members agree on it.
    pub fn of(doc: &StateDoc, known: &Known) -> Option<Self> {
        let (Some(admission), Ok(trusted)) = (&doc.admission, node::trusted(doc)) else {
            return None;
        };
        let plan = node::plan(admission);
        let mut table = Self::new(&admission.cluster, &plan);
        let mut taken = BTreeSet::new();
        let mut add = |name: &NodeName, index: MeshIndex| {
            let addresses = Addresses {
                v4: plan.address4(index),
                v6: plan.address6(index),
            };
            if !taken.contains(&index) && !table.names.contains_key(name.as_str()) {
                taken.insert(index);
                table.names.insert(name.to_string(), addresses);
            }
        };
        add(&admission.name, admission.index);
        for lighthouse in &trusted.lighthouses.lighthouses {
            // Its name is for people; what cannot be a label has no record.
            if let Ok(name) = lighthouse.name.to_ascii_lowercase().parse() {
                add(&name, lighthouse.index);
            }
        }
        let (operators, policy) = (&trusted.operators, &trusted.policy);
        let check = |m| {
            let opened = known.open(m).ok()?;
            let stands = opened.stands(admission.cluster_id, operators, policy);
            stands.is_ok().then_some(opened)
        };
        let mut members: Vec<_> = doc
            .members
            .iter()
            .filter_map(|m| check(&m.member))
            .collect();
        members.sort_by_key(|m| (m.record.signing_key, Reverse(m.record.counter)));
        for member in &members {
            add(&member.record.name, member.record.index);
        }
        Some(table)
    }

    /// Whether somebody at `from` gets an answer at all.
    pub fn serves(&self, from: IpAddr) -> bool {
        self.asked_by.iter().any(|net| net.contains(&from))
    }

    /// Lines of `/etc/hosts`: the long name first, so that it is the canonical one.
    pub fn hosts(&self) -> String {
        let mut text = String::new();
        for (name, at) in &self.names {
            // `localhost` alone stays this machine.
            let short = if name == "localhost" { "" } else { name };
            for ip in [IpAddr::from(at.v4), IpAddr::from(at.v6)] {
                let line = format!("{ip} {name}.{} {short}", self.zone);
                let _ = writeln!(text, "{}", line.trim_end());
            }
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use holdfast_core::cluster::ClusterId;
    use holdfast_core::state::CachedMember;

    /// A table of a cluster `demo` with `n1` at the first node's place.
    pub fn demo() -> Table {
        let plan = AddressPlan::new(ClusterId([9; 16]), false);
        let mut table = Table::new(&"demo".parse().unwrap(), &plan);
        let (v4, v6) = (
            plan.address4(MeshIndex::FIRST_NODE),
            plan.address6(MeshIndex::FIRST_NODE),
        );
        table.names.insert("n1".into(), Addresses { v4, v6 });
        table
    }

    #[test]
    fn a_joined_node_knows_itself_and_lighthouses_and_no_name_twice() {
        let mut doc = crate::lighthouse::tests::doc();
        let own = doc.admission.as_ref().unwrap().member.clone();
        // The same record among the members changes nothing.
        doc.members.push(CachedMember {
            member: own,
            endpoint: None,
            other: Default::default(),
        });
        let table = Table::of(&doc, &Known::default()).unwrap();
        assert_eq!(table.zone, "demo.internal");
        // Two lighthouses at one index: the first has it.
        assert_eq!(table.names.keys().collect::<Vec<_>>(), ["l20", "n1"]);
        let hosts = table.hosts();
        assert!(hosts.contains(" n1.demo.internal n1\n"), "{hosts}");
        assert_eq!(hosts.lines().count(), 4);
        assert!(Table::of(&StateDoc::default(), &Known::default()).is_none());
    }

    #[test]
    fn only_members_and_pods_are_answered() {
        let table = demo();
        assert!(table.serves(table.names["n1"].v4.into()));
        assert!(table.serves(table.names["n1"].v6.into()));
        assert!(!table.serves("192.168.1.2".parse().unwrap()));
        assert!(!table.serves("fe80::1".parse().unwrap()));
    }
}
