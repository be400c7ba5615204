//! Who may reach whom: the policy's rules, applied to groups.

use crate::cluster::CONTROL_PORT;
use crate::documents::{PortRange, Ports, Protocol, Rule};
use crate::names::GroupName;

/// Whether members of `one` and of `other` may talk, whoever begins. Without rules everybody may.
#[must_use]
pub fn connects(rules: &[Rule], one: &[GroupName], other: &[GroupName]) -> bool {
    let mut all = rules.iter();
    rules.is_empty() || all.any(|r| covers(r, one, other) || covers(r, other, one))
}

fn covers(rule: &Rule, from: &[GroupName], to: &[GroupName]) -> bool {
    from.contains(&rule.from) && to.contains(&rule.to)
}

/// Ports of one protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSet(Vec<PortRange>);

impl PortSet {
    /// Every port.
    fn all() -> Self {
        Self(vec![PortRange::all()])
    }

    /// Whether `port` is in it.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(port))
    }

    /// No port at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What one member may begin with another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Every protocol there is.
    pub everything: bool,
    /// Echo requests.
    pub icmp: bool,
    /// Destination ports.
    pub tcp: PortSet,
    /// Destination ports.
    pub udp: PortSet,
}

impl Allowed {
    fn all() -> Self {
        Self {
            everything: true,
            icmp: true,
            tcp: PortSet::all(),
            udp: PortSet::all(),
        }
    }

    fn add(&mut self, rule: &Rule) {
        let mut ports = vec![];
        for range in &rule.ports {
            match range {
                Ports::Known(range) => ports.push(*range),
                Ports::Unknown(_) => return,
            }
        }
        if !rule.other.is_empty() {
            return;
        }
        let whole = ports.is_empty();
        if whole {
            ports.push(PortRange::all());
        }
        match &rule.protocol {
            Some(Protocol::Tcp) => self.tcp.0.append(&mut ports),
            Some(Protocol::Udp) => self.udp.0.append(&mut ports),
            Some(Protocol::Icmp) if whole => self.icmp = true,
            None if whole => *self = Self::all(),
            // Ports of no protocol, ports of ICMP, what a later version knows: nothing.
            Some(Protocol::Icmp | Protocol::Unknown(_)) | None => {}
        }
    }
}

/// What passes between this member and another, by who begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The other one.
    pub theirs: Allowed,
    /// This one.
    pub ours: Allowed,
}

impl Access {
    /// Everything, both ways.
    #[must_use]
    pub fn open() -> Self {
        Self {
            theirs: Allowed::all(),
            ours: Allowed::all(),
        }
    }

    /// With a lighthouse: it reaches the control port, whatever the rules say, and nothing else.
    #[must_use]
    pub fn lighthouse() -> Self {
        Self {
            theirs: Allowed {
                tcp: PortSet(vec![PortRange::one(CONTROL_PORT)]),
                ..Allowed::default()
            },
            ours: Allowed {
                icmp: true,
                ..Allowed::default()
            },
        }
    }

    /// Between a member with groups `own` and one with groups `other`. Members that may talk at all
    /// also reach each other's control port: there they hand on what the roots signed, and only
    /// operators are let in to anything else.
    #[must_use]
    pub fn between(rules: &[Rule], own: &[GroupName], other: &[GroupName]) -> Self {
        if rules.is_empty() {
            return Self::open();
        }
        let mut access = Self::default();
        for rule in rules {
            if covers(rule, other, own) {
                access.theirs.add(rule);
            }
            if covers(rule, own, other) {
                access.ours.add(rule);
            }
        }
        if connects(rules, own, other) {
            let control = PortRange::one(CONTROL_PORT);
            access.theirs.tcp.0.push(control);
            access.ours.tcp.0.push(control);
        }
        access
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(names: &[&str]) -> Vec<GroupName> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn rules(json: &str) -> Vec<Rule> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_rule_opens_its_ports_in_its_direction() {
        let rules = rules(
            r#"[{"from":"phones","to":"web","protocol":"tcp","ports":["80","8000-8080"]},
                {"from":"phones","to":"web","protocol":"icmp"},
                {"from":"admins","to":"web"}]"#,
        );
        let (phones, web) = (groups(&["phones"]), groups(&["web", "other"]));
        let at_web = Access::between(&rules, &web, &phones);
        for port in [80, 8000, 8080, CONTROL_PORT] {
            assert!(at_web.theirs.tcp.contains(port), "{port}");
        }
        assert!(!at_web.theirs.tcp.contains(81) && at_web.theirs.udp.is_empty());
        assert!(at_web.theirs.icmp && !at_web.theirs.everything);
        assert!(!at_web.ours.icmp && !at_web.ours.tcp.contains(80));
        let at_phone = Access::between(&rules, &phones, &web);
        assert_eq!(
            (at_phone.ours, at_phone.theirs),
            (at_web.theirs, at_web.ours)
        );
        assert!(
            Access::between(&rules, &web, &groups(&["admins"]))
                .theirs
                .everything
        );
        // Nothing at all between those whom no rule connects, and everything without rules.
        assert_eq!(Access::between(&rules, &phones, &phones), Access::default());
        assert!(!connects(&rules, &phones, &phones) && connects(&rules, &web, &phones));
        assert_eq!(Access::between(&[], &phones, &phones), Access::open());
    }

    #[test]
    fn what_a_later_version_wrote_allows_nothing_and_does_not_open_the_rest() {
        for rule in [
            r#"{"from":"a","to":"b","protocol":"sctp"}"#,
            r#"{"from":"a","to":"b","protocol":{"number":132}}"#,
            r#"{"from":"a","to":"b","protocol":"tcp","ports":["80",{"service":"http"}]}"#,
            r#"{"from":"a","to":"b","protocol":"tcp","ports":[80]}"#,
            r#"{"from":"a","to":"b","only":"at night"}"#,
            r#"{"from":"a","to":"b","ports":["80"]}"#,
            r#"{"from":"a","to":"b","protocol":"icmp","ports":["80"]}"#,
        ] {
            let rules = rules(&format!("[{rule}]"));
            let access = Access::between(&rules, &groups(&["b"]), &groups(&["a"]));
            // They still know each other.
            let control = PortSet(vec![PortRange::one(CONTROL_PORT)]);
            let only = Allowed {
                tcp: control,
                ..Allowed::default()
            };
            assert_eq!((&access.theirs, &access.ours), (&only, &only), "{rule}");
            // And nothing of it is lost when it is written again.
            let again = serde_json::to_value(&rules).unwrap();
            let was: serde_json::Value = serde_json::from_str(&format!("[{rule}]")).unwrap();
            assert_eq!(again, was);
        }
    }

    #[test]
    fn a_lighthouse_reaches_the_control_port_only() {
        let access = Access::lighthouse();
        assert!(access.theirs.tcp.contains(CONTROL_PORT));
        assert!(!access.theirs.tcp.contains(22) && !access.theirs.icmp);
        assert!(!access.theirs.everything && access.theirs.udp.is_empty());
    }

    #[test]
    fn port_ranges_are_read_as_they_are_written() {
        for text in ["1", "80", "8000-8080", "1-65535"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        for text in ["", "0", "65536", "9-8", "-", "80-", "http", "80, 81"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
