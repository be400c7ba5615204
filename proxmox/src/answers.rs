//! What came back, checked. Proxmox's objects grow with its versions: fields that are not known here
//! are passed over, those that are needed are checked.

use crate::names::{Node, Storage, Upid, VmId, Volume};
use serde_json::Value;
use std::collections::BTreeMap;

/// An answer that is not what the API documents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} has not the documented form: {found}")]
pub struct BadAnswer {
    /// Which answer.
    what: &'static str,
    /// Its beginning.
    found: String,
}

impl BadAnswer {
    pub(crate) fn new(what: &'static str, found: &impl ToString) -> Self {
        Self {
            what,
            found: found.to_string().chars().take(200).collect(),
        }
    }
}

type Checked<T> = Result<T, BadAnswer>;

/// The `data` of an answer's body.
///
/// # Errors
/// It is no JSON object with `data`.
pub fn data(what: &'static str, body: &[u8]) -> Checked<Value> {
    let parsed: Result<Value, _> = serde_json::from_slice(body);
    match parsed {
        Ok(Value::Object(mut object)) => object
            .remove("data")
            .ok_or_else(|| BadAnswer::new(what, &String::from_utf8_lossy(body))),
        _ => Err(BadAnswer::new(what, &String::from_utf8_lossy(body))),
    }
}

/// Perl's JSON has numbers as texts now and then.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(n) => n.as_u64(),
        Value::String(s) => s.parse().ok(),
        _ => None,
    }
}

fn flag(value: &Value) -> bool {
    value.as_bool() == Some(true) || number(value) == Some(1)
}

fn list<T>(what: &'static str, data: &Value, one: impl Fn(&Value) -> Option<T>) -> Checked<Vec<T>> {
    let bad = |v: &Value| BadAnswer::new(what, v);
    let all = data.as_array().ok_or_else(|| bad(data))?;
    all.iter().map(|v| one(v).ok_or_else(|| bad(v))).collect()
}

/// A version of Proxmox VE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// Before the point.
    pub major: u32,
    /// Behind it.
    pub minor: u32,
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Release {
    /// The first that takes disk images by upload (storage content `import`).
    pub const TAKES_IMAGES: Self = Self { major: 8, minor: 4 };

    /// Of `/version`.
    ///
    /// # Errors
    /// [`BadAnswer`].
    pub fn read(data: &Value) -> Checked<Self> {
        let text = data["version"].as_str().unwrap_or_default();
        let mut parts = text.split(['.', '-', '~']).map(|p| p.parse().ok());
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(BadAnswer::new("the version", data)),
        }
    }
}

/// The nodes that are online.
///
/// # Errors
/// [`BadAnswer`].
pub fn online_nodes(data: &Value) -> Checked<Vec<Node>> {
    let all = list("the list of nodes", data, |v| {
        let node: Node = v["node"].as_str()?.parse().ok()?;
        Some((node, v["status"].as_str() == Some("online")))
    })?;
    Ok(all
        .into_iter()
        .filter(|(_, on)| *on)
        .map(|(n, _)| n)
        .collect())
}

/// A free machine number.
///
/// # Errors
/// [`BadAnswer`].
pub fn free_id(data: &Value) -> Checked<VmId> {
    let id = number(data).and_then(|n| VmId::new(n).ok());
    id.ok_or_else(|| BadAnswer::new("the free VM id", data))
}

/// A storage of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageEntry {
    /// Its name.
    pub storage: Storage,
    /// What it may hold: `images`, `iso`, `import`, ….
    pub content: Vec<String>,
    /// It can be reached.
    pub active: bool,
    /// Free bytes, where it says.
    pub free: Option<u64>,
}

impl StorageEntry {
    /// Whether it may hold `kind`.
    #[must_use]
    pub fn holds(&self, kind: &str) -> bool {
        self.content.iter().any(|c| c == kind)
    }
}

/// A node's storages.
///
/// # Errors
/// [`BadAnswer`].
pub fn storages(data: &Value) -> Checked<Vec<StorageEntry>> {
    list("the list of storages", data, |v| {
        Some(StorageEntry {
            storage: v["storage"].as_str()?.parse().ok()?,
            content: v["content"]
                .as_str()?
                .split(',')
                .map(str::to_owned)
                .collect(),
            active: flag(&v["active"]),
            free: number(&v["avail"]),
        })
    })
}

/// The volumes on a storage.
///
/// # Errors
/// [`BadAnswer`].
pub fn volumes(data: &Value) -> Checked<Vec<Volume>> {
    list("a storage's content", data, |v| {
        v["volid"].as_str()?.parse().ok()
    })
}

/// A machine of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineEntry {
    /// Its number.
    pub id: VmId,
    /// Where it is.
    pub node: Node,
    /// Its name.
    pub name: String,
    /// It is powered on.
    pub running: bool,
    /// It is a template.
    pub template: bool,
    /// Its tags.
    pub tags: Vec<String>,
}

/// Tags as Proxmox writes them.
fn tags(value: &Value) -> Vec<String> {
    let text = value.as_str().unwrap_or_default();
    text.split([';', ',', ' '])
        .filter(|t| !t.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The cluster's machines; containers are passed over.
///
/// # Errors
/// [`BadAnswer`].
pub fn machines(data: &Value) -> Checked<Vec<MachineEntry>> {
    let all = list("the list of machines", data, |v| {
        if v["type"].as_str()? != "qemu" {
            return Some(None);
        }
        Some(Some(MachineEntry {
            id: VmId::new(number(&v["vmid"])?).ok()?,
            node: v["node"].as_str()?.parse().ok()?,
            name: v["name"].as_str().unwrap_or_default().to_owned(),
            running: v["status"].as_str() == Some("running"),
            template: flag(&v["template"]),
            tags: tags(&v["tags"]),
        }))
    })?;
    Ok(all.into_iter().flatten().collect())
}

/// A machine's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config(BTreeMap<String, String>);

impl Config {
    /// Of `/nodes/N/qemu/ID/config`.
    ///
    /// # Errors
    /// [`BadAnswer`].
    pub fn read(data: &Value) -> Checked<Self> {
        let object = data
            .as_object()
            .ok_or_else(|| BadAnswer::new("a machine's settings", data))?;
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        Ok(Self(
            object.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
        ))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        self.get("tags").map_or_else(Vec::new, |t| tags(&t.into()))
    }
}

/// Whether a machine runs.
///
/// # Errors
/// [`BadAnswer`].
pub fn running(data: &Value) -> Checked<bool> {
    match data["status"].as_str() {
        Some(status) => Ok(status == "running"),
        None => Err(BadAnswer::new("a machine's status", data)),
    }
}

/// The task that a call started; some calls need none (`null`).
///
/// # Errors
/// [`BadAnswer`].
pub fn task(data: &Value) -> Checked<Option<Upid>> {
    match data {
        Value::Null => Ok(None),
        Value::String(text) => match text.parse() {
            Ok(upid) => Ok(Some(upid)),
            Err(_) => Err(BadAnswer::new("a task's id", data)),
        },
        _ => Err(BadAnswer::new("a task's id", data)),
    }
}

/// What a task has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskStatus {
    /// It goes on.
    Running,
    /// It is over, with this exit status.
    Stopped(String),
}

impl TaskStatus {
    /// Of `/nodes/N/tasks/UPID/status`.
    ///
    /// # Errors
    /// [`BadAnswer`].
    pub fn read(data: &Value) -> Checked<Self> {
        match data["status"].as_str() {
            Some("running") => Ok(Self::Running),
            Some("stopped") => Ok(Self::Stopped(
                data["exitstatus"]
                    .as_str()
                    .unwrap_or("no exit status")
                    .into(),
            )),
            _ => Err(BadAnswer::new("a task's status", data)),
        }
    }
}

/// A task's output.
///
/// # Errors
/// [`BadAnswer`].
pub fn log(data: &Value) -> Checked<Vec<String>> {
    list("a task's log", data, |v| v["t"].as_str().map(str::to_owned))
}

/// The addresses that the guest agent tells, without those of the machine itself.
///
/// # Errors
/// [`BadAnswer`].
pub fn guest_addresses(data: &Value) -> Checked<Vec<std::net::IpAddr>> {
    let all = list("the guest agent's interfaces", &data["result"], |v| {
        let addresses = v["ip-addresses"].as_array().into_iter().flatten();
        let parsed = addresses.filter_map(|a| a["ip-address"].as_str()?.parse().ok());
        Some(parsed.collect::<Vec<std::net::IpAddr>>())
    })?;
    let link_local = |a: &std::net::IpAddr| match a {
        std::net::IpAddr::V4(a) => a.is_link_local(),
        std::net::IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    let outside = |a: &std::net::IpAddr| !a.is_loopback() && !link_local(a);
    Ok(all.into_iter().flatten().filter(outside).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn versions() {
        let read = |v: &str| Release::read(&json!({"version": v}));
        assert_eq!(read("8.4.1").unwrap(), Release::TAKES_IMAGES);
        assert!(read("8.3.5").unwrap() < Release::TAKES_IMAGES);
        assert!(read("9.0.0~10").unwrap() > Release::TAKES_IMAGES);
        assert!(read("8").is_err() && Release::read(&json!(null)).is_err());
    }

    #[test]
    fn machines_and_settings() {
        let data = json!([
            {"type": "qemu", "vmid": 101, "node": "pve", "name": "n1", "status": "running", "template": 0, "tags": "a;holdfast"},
            {"type": "lxc", "vmid": 102, "node": "pve"},
        ]);
        let all = machines(&data).unwrap();
        assert_eq!(all.len(), 1);
        assert!(all[0].running && !all[0].template && all[0].tags == ["a", "holdfast"]);
        assert!(machines(&json!([{"type": "qemu", "vmid": 3, "node": "pve"}])).is_err());
        let config = Config::read(&json!({"cores": 2, "tags": "x"})).unwrap();
        assert_eq!(config.get("cores"), Some("2"));
    }

    #[test]
    fn the_guests_own_addresses_are_left_out() {
        let data = json!({"result": [
            {"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1"}, {"ip-address": "::1"}]},
            {"name": "eth0", "ip-addresses": [{"ip-address": "192.0.2.7"}, {"ip-address": "fe80::1"}]},
            {"name": "x"},
        ]});
        assert_eq!(
            guest_addresses(&data).unwrap(),
            ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()]
        );
    }

    proptest! {
        #[test]
        fn any_body_is_an_answer_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = data("x", &body);
        }
    }
}
