//! The nodes as the lighthouse lists them, believed only as far as signatures go.

use crate::cluster_dir::Documents;
use crate::exit::Exit;
use crate::lighthouse::{Believed, Connection, merged};
use crate::words::roughly;
use anyhow::Result;
use holdfast_core::api::NodeEntry;
use holdfast_core::cluster::{AddressPlan, ClusterId};
use holdfast_core::documents::Policy;
use holdfast_core::grant::{VerifiedMember, verify};
use holdfast_core::keys::PublicKey;
use holdfast_core::names::{GrantId, NameError, NodeName, Role};
use holdfast_core::status::{K3sState, NodeStatus, SlotName, SlotStatus, SystemMemory};
use serde::{Serialize, Serializer};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// From how many seconds on what a node said of itself is told as old: nodes report every 30 s.
const OLD: u64 = 120;

/// A node as `nodes` and `status` show it.
#[derive(Debug, Clone, Serialize)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Its signing key: tells apart two that have one name.
    pub key: Option<String>,
    /// What it is to the cluster.
    pub role: Option<Role>,
    /// Whether it is a plain WireGuard client: it gives no account of itself.
    pub client: bool,
    /// Its IPv4 address in the mesh.
    pub mesh_address: Option<Ipv4Addr>,
    /// Its IPv6 address in the mesh.
    pub mesh_address6: Option<Ipv6Addr>,
    /// The running slot.
    pub slot: Option<SlotName>,
    /// The running image's version.
    pub version: Option<String>,
    /// The running image's generation.
    pub generation: Option<u64>,
    /// Whether the running slot is on trial.
    pub on_trial: Option<bool>,
    /// k3s.
    pub k3s: Option<K3sState>,
    /// Which k3s.
    pub k3s_version: Option<String>,
    /// Whether test equipment stands in for k3s.
    pub k3s_stand_in: Option<bool>,
    /// Why the machine booted this way.
    pub reason: Option<String>,
    /// The boot that is running.
    pub boot_id: Option<String>,
    /// Seconds since the kernel started.
    pub uptime: Option<u64>,
    /// Both slots.
    pub slots: Vec<SlotStatus>,
    /// What an operator should know.
    pub notes: Vec<String>,
    /// Seconds since the lighthouse heard from it.
    pub seen: Option<u64>,
    /// Seconds since its last handshake with the lighthouse.
    pub handshake_age: Option<u64>,
    /// What the system itself holds in memory.
    pub memory: Option<SystemMemory>,
    /// Whether its standing connection is open.
    pub standing: bool,
    /// Its mesh socket as the lighthouse sees it.
    pub endpoint: Option<SocketAddr>,
    /// Why what the lighthouse says of it cannot be believed.
    pub problem: Option<String>,
}

/// A node by its name; by its signing key where two have one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Its name.
    Name(NodeName),
    /// Its signing key.
    Key(PublicKey),
}

impl FromStr for Which {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // No name has a key's length and characters.
        match text.parse() {
            Ok(key) => Ok(Self::Key(key)),
            Err(_) => text.parse().map(Self::Name),
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Key(key) => key.fmt(f),
        }
    }
}

impl Serialize for Which {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which cluster, and what its roots signed: all that judging an entry takes.
pub struct Judge<'a> {
    /// The cluster.
    pub id: ClusterId,
    /// Its addresses.
    pub plan: AddressPlan,
    /// What the roots signed.
    pub documents: &'a Documents,
}

impl Judge<'_> {
    /// The member behind an entry, if its signatures hold.
    ///
    /// # Errors
    /// Why it is not believed, in words.
    pub fn member(&self, entry: &NodeEntry) -> Result<VerifiedMember, String> {
        self.member_by(entry, &self.documents.policy)
    }

    /// As [`Self::member`], of one that the policy may have put out by now.
    ///
    /// # Errors
    /// Why it is not believed, in words.
    pub fn member_in_or_out(&self, entry: &NodeEntry) -> Result<VerifiedMember, String> {
        let lenient = Policy {
            evicted: vec![],
            revoked: vec![],
            ..self.documents.policy.clone()
        };
        self.member_by(entry, &lenient)
    }

    /// What the signatures of an entry say, if they hold.
    pub fn believed(&self, entry: &NodeEntry) -> Option<Believed> {
        let member = self.member_in_or_out(entry).ok()?;
        let status = self.status(entry, &member).ok().flatten();
        Some(Believed {
            key: member.record.signing_key,
            is_in: self.member(entry).is_ok(),
            record: member.record.counter,
            account: status.map(|s| s.counter),
        })
    }

    /// The one that is meant.
    ///
    /// # Errors
    /// When there is none, or more than one has the name.
    pub fn find<'e>(&self, entries: &'e [NodeEntry], which: &Which) -> Result<&'e NodeEntry> {
        let key = |entry: &NodeEntry| self.believed(entry).map(|b| b.key);
        let found = entries.iter().filter(|entry| match which {
            Which::Name(name) => entry.name == *name,
            Which::Key(wanted) => key(entry) == Some(*wanted),
        });
        let found: Vec<_> = found.collect();
        match found[..] {
            [one] => Ok(one),
            [] => {
                let known: Vec<_> = entries.iter().map(|e| e.name.as_str()).collect();
                let known = if known.is_empty() {
                    "none has joined yet".into()
                } else {
                    format!("there are {}", known.join(", "))
                };
                Err(Exit::Failed.error(format!("no node is called {which}: {known}")))
            }
            _ => {
                let keys = found.into_iter().filter_map(key);
                let keys: Vec<_> = keys.map(|key| key.to_string()).collect();
                Err(Exit::Failed.error(format!(
                    "{} members are called {which}: give the key of the one that is meant in place of its name, of {}",
                    keys.len(),
                    keys.join(" and ")
                )))
            }
        }
    }

    /// Signing keys of the members in `entries` that joined with the grant `id` and are in. Each
    /// lighthouse counts the uses that were made there, but members bring their records to all.
    pub fn joined_with<'e>(
        &self,
        entries: impl IntoIterator<Item = &'e NodeEntry>,
        id: &GrantId,
    ) -> Vec<PublicKey> {
        let members = entries.into_iter().filter_map(|e| self.member(e).ok());
        members
            .filter(|m| m.grant.id == *id)
            .map(|m| m.record.signing_key)
            .collect()
    }

    fn member_by(&self, entry: &NodeEntry, policy: &Policy) -> Result<VerifiedMember, String> {
        let member = verify(&entry.member, self.id, &self.documents.operators, policy)
            .map_err(|e| e.to_string())?;
        if member.record.name != entry.name {
            return Err(format!(
                "the lighthouse calls it {}, its record says {}",
                entry.name, member.record.name
            ));
        }
        Ok(member)
    }

    fn status(
        &self,
        entry: &NodeEntry,
        member: &VerifiedMember,
    ) -> Result<Option<NodeStatus>, String> {
        let Some(signed) = &entry.status else {
            return Ok(None);
        };
        let status = signed
            .open(|k| *k == member.record.signing_key)
            .map_err(|e| e.to_string())?;
        if status.cluster != self.id || status.name != member.record.name {
            return Err("its status is another node's".into());
        }
        Ok(Some(status))
    }

    /// What to say of a node that holds something newer than what is held here.
    fn ahead(&self, status: &NodeStatus) -> Option<String> {
        let held = self.documents;
        let own = [
            ("operators", held.operators.generation),
            ("lighthouses", held.lighthouses.generation),
            ("policy", held.policy.generation),
        ];
        let newer: Vec<_> = own
            .iter()
            .zip(status.documents?)
            .filter(|((_, own), its)| its > own)
            .map(|((name, own), its)| format!("{name} {its}, here {own}"))
            .collect();
        (!newer.is_empty()).then(|| {
            format!(
                "it holds newer documents ({}), as after an older backup: it hands them to the lighthouse by itself; sign nothing before this line is gone, or what they say is undone",
                newer.join("; ")
            )
        })
    }

    /// The nodes that say that they hold a newer policy than the one here.
    #[must_use]
    pub fn ahead_in_policy(&self, entries: &[NodeEntry]) -> Vec<NodeName> {
        let policy = self.documents.policy.generation;
        let ahead = entries.iter().filter(|entry| {
            let status = self.member(entry).map(|member| self.status(entry, &member));
            let held = status
                .ok()
                .and_then(Result::ok)
                .flatten()
                .and_then(|s| s.documents);
            held.is_some_and(|[_, _, its]| its > policy)
        });
        ahead.map(|entry| entry.name.clone()).collect()
    }

    /// The entry as it is shown.
    pub fn view(&self, entry: &NodeEntry) -> NodeView {
        let mut view = empty(entry.name.clone());
        view.handshake_age = entry.handshake_age;
        view.standing = entry.standing;
        view.endpoint = entry.endpoint;
        match self.member(entry) {
            Ok(member) => {
                view.key = Some(member.record.signing_key.to_string());
                view.role = Some(member.grant.role);
                view.client = member.record.via.is_some();
                view.mesh_address = Some(self.plan.address4(member.record.index));
                view.mesh_address6 = Some(self.plan.address6(member.record.index));
                match self.status(entry, &member) {
                    Ok(Some(status)) => {
                        let ahead = self.ahead(&status);
                        fill(&mut view, status);
                        view.notes.extend(ahead);
                        view.seen = entry.status_age;
                    }
                    Ok(None) => {}
                    Err(why) => view.problem = Some(why),
                }
            }
            Err(why) => view.problem = Some(why),
        }
        view
    }

    /// What a node said over a control stream.
    pub fn view_of(&self, status: NodeStatus) -> NodeView {
        let mut view = empty(status.name.clone());
        view.role = Some(status.role);
        view.mesh_address = Some(self.plan.address4(status.index));
        view.mesh_address6 = Some(self.plan.address6(status.index));
        view.seen = Some(0);
        view.handshake_age = status.handshake_age;
        fill(&mut view, status);
        view
    }
}

fn empty(name: NodeName) -> NodeView {
    NodeView {
        name,
        key: None,
        role: None,
        client: false,
        mesh_address: None,
        mesh_address6: None,
        slot: None,
        version: None,
        generation: None,
        on_trial: None,
        k3s: None,
        k3s_version: None,
        k3s_stand_in: None,
        reason: None,
        boot_id: None,
        uptime: None,
        slots: vec![],
        notes: vec![],
        seen: None,
        handshake_age: None,
        memory: None,
        standing: false,
        endpoint: None,
        problem: None,
    }
}

fn fill(view: &mut NodeView, status: NodeStatus) {
    view.memory = status.memory;
    view.slot = Some(status.boot.slot);
    view.version = Some(status.boot.version);
    view.generation = Some(status.boot.generation);
    view.on_trial = Some(status.boot.on_trial);
    view.reason = Some(status.boot.reason);
    view.boot_id = Some(status.boot.boot_id);
    view.slots = status.boot.slots;
    view.k3s = Some(status.k3s);
    view.k3s_stand_in = status.k3s_info.as_ref().map(|i| i.stand_in);
    view.k3s_version = status.k3s_info.map(|i| i.version);
    view.uptime = Some(status.uptime);
    view.notes = status.notes;
}

impl NodeView {
    /// k3s in one word, with what it is where it is no k3s, and how old the word is where it is old.
    pub fn k3s_words(&self) -> String {
        let state = self.k3s.map(|k| k.to_string()).unwrap_or_default();
        if matches!(self.k3s, None | Some(K3sState::None)) {
            return state;
        }
        let what = match self.k3s_stand_in {
            Some(true) => " (stand-in)",
            _ => "",
        };
        match self.seen {
            Some(age) if age >= OLD => format!("{state}{what}, {} ago", roughly(age)),
            _ => format!("{state}{what}"),
        }
    }

    /// The slot, with a mark while on trial.
    pub fn slot_words(&self) -> String {
        let slot = self.slot.map(|s| s.to_string()).unwrap_or_default();
        if self.on_trial == Some(true) {
            format!("{slot} (trial)")
        } else {
            slot
        }
    }
}

impl Connection {
    /// Judges entries by the documents at hand.
    pub fn judge(&self) -> Judge<'_> {
        Judge {
            id: self.cluster.config.id,
            plan: self.cluster.plan(),
            documents: &self.documents,
        }
    }

    /// All entries, as the lighthouses list them.
    pub async fn entries(&self) -> Result<Vec<NodeEntry>> {
        let judge = self.judge();
        Ok(merged(self.listed().await?, |entry| judge.believed(entry)))
    }

    /// The member that is meant, verified.
    ///
    /// # Errors
    /// When there is none, or its signatures do not hold.
    pub async fn node(&self, which: &Which) -> Result<VerifiedMember> {
        let entries = self.entries().await?;
        let entry = self.judge().find(&entries, which)?;
        self.judge()
            .member(entry)
            .map_err(|why| not_believed(&entry.name, &why))
    }
}

/// The error for an entry whose signatures do not hold.
pub fn not_believed(name: &NodeName, why: &str) -> anyhow::Error {
    Exit::Refused.error(format!(
        "what the lighthouse says of {name} is not to be believed: {why}"
    ))
}

#[cfg(test)]
pub(crate) mod tests;
