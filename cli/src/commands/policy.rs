//! `holdfast policy show|allow|disallow`: which group reaches which.

use crate::app::App;
use crate::exit::Exit;
use crate::lighthouse::connect;
use crate::table::table;
use anyhow::Result;
use holdfast_core::documents::{PortRange, Ports, Protocol, Rule};
use holdfast_core::names::GroupName;
use serde::Serialize;

/// The sub-verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Show the rules
    #[command(after_help = "\
Example:
  holdfast policy show

Without any rule every node may reach every other.")]
    Show,
    /// Let a group reach another
    #[command(after_help = "\
Examples:
  holdfast policy allow admins servers
  holdfast policy allow phones web --tcp 80,443,8000-8080 --icmp

The first rule closes what no rule allows, k3s's traffic between nodes too: let a group of nodes that \
run one cluster reach itself. The lighthouse reaches every node's control port whatever the rules say, \
and answers come back without a rule. A node's groups are those of its grant (seed new --group).")]
    Allow(Args),
    /// Take a rule back
    #[command(after_help = "\
Examples:
  holdfast policy disallow phones web --tcp 80,443,8000-8080
  holdfast policy disallow phones web        every rule from phones to web

With the last rule gone, every node may reach every other again.")]
    Disallow(Args),
}

/// A rule, as typed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Members of this group may begin
    from: GroupName,
    /// Members of this group may be reached
    to: GroupName,
    /// TCP, on these ports alone: 80,443,8000-8080
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    tcp: Vec<PortRange>,
    /// UDP, on these ports alone
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    udp: Vec<PortRange>,
    /// Pings
    #[arg(long)]
    icmp: bool,
}

impl Args {
    /// One rule for each protocol; for none of them one that allows everything.
    fn rules(&self) -> Vec<Rule> {
        let rule = |protocol, ports: &[PortRange]| Rule {
            protocol,
            ports: ports.iter().copied().map(Ports::Known).collect(),
            ..Rule::new(self.from.clone(), self.to.clone())
        };
        let mut rules = vec![];
        if !self.tcp.is_empty() {
            rules.push(rule(Some(Protocol::Tcp), &self.tcp));
        }
        if !self.udp.is_empty() {
            rules.push(rule(Some(Protocol::Udp), &self.udp));
        }
        if self.icmp {
            rules.push(rule(Some(Protocol::Icmp), &[]));
        }
        if rules.is_empty() {
            rules.push(rule(None, &[]));
        }
        rules
    }

    /// Whether it names groups only.
    fn whole(&self) -> bool {
        self.tcp.is_empty() && self.udp.is_empty() && !self.icmp
    }
}

/// The rules with `wanted`; none when all are there already.
fn allowed(rules: &[Rule], wanted: &Args) -> Option<Vec<Rule>> {
    let mut all = rules.to_vec();
    for rule in wanted.rules() {
        if !all.contains(&rule) {
            all.push(rule);
        }
    }
    (all.len() > rules.len()).then_some(all)
}

/// The rules without `unwanted`; none when there is nothing to take back.
fn disallowed(rules: &[Rule], unwanted: &Args) -> Option<Vec<Rule>> {
    let named = unwanted.rules();
    let goes = |r: &Rule| {
        let pair = r.from == unwanted.from && r.to == unwanted.to;
        pair && (unwanted.whole() || named.contains(r))
    };
    let left: Vec<_> = rules.iter().filter(|r| !goes(r)).cloned().collect();
    (left.len() < rules.len()).then_some(left)
}

#[derive(Serialize)]
struct Shown<'a> {
    generation: u64,
    rules: &'a [Rule],
}

fn what(rule: &Rule) -> [String; 4] {
    let protocol = match &rule.protocol {
        None => "everything".into(),
        Some(Protocol::Tcp) => "tcp".into(),
        Some(Protocol::Udp) => "udp".into(),
        Some(Protocol::Icmp) => "icmp".into(),
        Some(Protocol::Unknown(other)) => format!("{other} (unknown here)"),
    };
    let protocol = if rule.other.is_empty() {
        protocol
    } else {
        format!("{protocol}, with more that is unknown here")
    };
    let ports = rule.ports.iter().map(|ports| match ports {
        Ports::Known(range) => range.to_string(),
        Ports::Unknown(other) => format!("{other} (unknown here)"),
    });
    let ports = ports.collect::<Vec<_>>().join(",");
    [rule.from.to_string(), rule.to.to_string(), protocol, ports]
}

fn text(rules: &[Rule]) -> String {
    if rules.is_empty() {
        return "No rules: every node may reach every other.".into();
    }
    table(["from", "to", "protocol", "ports"], rules.iter().map(what))
}

/// What `verb` makes of the rules that hold, and what to say once it does; none: nothing to do.
fn change(verb: &Verb, rules: &[Rule]) -> Result<Option<(Vec<Rule>, &'static str)>> {
    match verb {
        Verb::Show => Ok(None),
        Verb::Allow(args) => Ok(allowed(rules, args).map(|new| {
            let first = "The first rule: from now on nodes reach only what a rule allows.";
            (new, if rules.is_empty() { first } else { "" })
        })),
        Verb::Disallow(args) => {
            let left = disallowed(rules, args).ok_or_else(|| {
                let text = "there is no such rule: `holdfast policy show` lists them";
                Exit::Failed.error(text)
            })?;
            let last = "The last rule is gone: every node may reach every other.";
            let said = if left.is_empty() { last } else { "" };
            Ok(Some((left, said)))
        }
    }
}

/// Runs the verb.
pub async fn run(app: &App, verb: Verb) -> Result<()> {
    let mut connection = connect(app).await?;
    if change(&verb, &connection.documents.policy.rules)?.is_some() {
        // Another command may have signed other rules since: those are changed.
        let mut said = "";
        let changed = connection.change_policy(app, |policy| {
            let Some((rules, what)) = change(&verb, &policy.rules)? else {
                return Ok(false);
            };
            (policy.rules, said) = (rules, what);
            Ok(true)
        });
        changed.await?;
        if !said.is_empty() {
            app.say(said);
        }
    } else if !matches!(verb, Verb::Show) {
        // An earlier change may not have reached the lighthouse.
        connection.push_documents(app).await?;
    }
    let policy = &connection.documents.policy;
    let shown = Shown {
        generation: policy.generation,
        rules: &policy.rules,
    };
    app.print(&shown, || text(&policy.rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(tcp: &[&str], icmp: bool) -> Args {
        Args {
            from: "phones".parse().unwrap(),
            to: "web".parse().unwrap(),
            tcp: tcp.iter().map(|p| p.parse().unwrap()).collect(),
            udp: vec![],
            icmp,
        }
    }

    #[test]
    fn rules_come_once_and_go_as_they_were_named() {
        let web = args(&["80", "8000-8080"], true);
        let rules = allowed(&[], &web).unwrap();
        assert_eq!(rules.len(), 2);
        assert!(allowed(&rules, &web).is_none());
        let more = allowed(&rules, &args(&[], false)).unwrap();
        assert_eq!(more.len(), 3);
        let shown = text(&more);
        assert!(
            shown.contains("80,8000-8080") && shown.contains("everything"),
            "{shown}"
        );
        // One of them, all of the pair, none.
        assert_eq!(disallowed(&more, &args(&[], true)).unwrap().len(), 2);
        assert!(disallowed(&more, &args(&[], false)).unwrap().is_empty());
        assert!(disallowed(&more, &args(&["81"], false)).is_none());
    }
}
