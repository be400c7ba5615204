//! What is asked of the API, as values: method, path under `/api2/json`, parameters.

use crate::names::{Node, Storage, Upid, VmId, Volume};
use std::fmt::Write as _;

/// HTTP's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Makes or starts.
    Post,
    /// Changes.
    Put,
    /// Removes.
    Delete,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// How.
    pub method: Method,
    /// Where, with its names percent-encoded.
    pub path: String,
    /// Parameters: in the query of `Get` and `Delete`, else in a form.
    pub params: Vec<(String, String)>,
}

impl Call {
    fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            params: vec![],
        }
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.params.push((name.into(), value.to_string()));
        self
    }

    /// The parameters as `application/x-www-form-urlencoded` has them.
    #[must_use]
    pub fn form(&self) -> String {
        let pairs = self.params.iter();
        let pairs = pairs.map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

/// `text` with everything percent-encoded that RFC 3986 does not call unreserved.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn machine(node: &Node, id: VmId, rest: &str) -> String {
    format!("/nodes/{node}/qemu/{id}{rest}")
}

/// The version.
#[must_use]
pub fn version() -> Call {
    Call::new(Method::Get, "/version".into())
}

/// All nodes.
#[must_use]
pub fn nodes() -> Call {
    Call::new(Method::Get, "/nodes".into())
}

/// A free machine number; with `wanted`, whether that one is free.
#[must_use]
pub fn next_id(wanted: Option<VmId>) -> Call {
    let call = Call::new(Method::Get, "/cluster/nextid".into());
    match wanted {
        Some(id) => call.with("vmid", id),
        None => call,
    }
}

/// All machines of the cluster that the token may see.
#[must_use]
pub fn machines() -> Call {
    Call::new(Method::Get, "/cluster/resources".into()).with("type", "vm")
}

/// A node's storages.
#[must_use]
pub fn storages(node: &Node) -> Call {
    Call::new(Method::Get, format!("/nodes/{node}/storage")).with("enabled", 1)
}

/// The files of one kind on a storage.
#[must_use]
pub fn content(node: &Node, storage: &Storage, kind: &str) -> Call {
    Call::new(
        Method::Get,
        format!("/nodes/{node}/storage/{storage}/content"),
    )
    .with("content", kind)
}

/// Where a file is uploaded to.
#[must_use]
pub fn upload(node: &Node, storage: &Storage) -> Call {
    Call::new(
        Method::Post,
        format!("/nodes/{node}/storage/{storage}/upload"),
    )
}

/// Removes a file.
#[must_use]
pub fn remove_volume(node: &Node, volume: &Volume) -> Call {
    let name = encoded(&volume.to_string());
    let storage = volume.storage();
    Call::new(
        Method::Delete,
        format!("/nodes/{node}/storage/{storage}/content/{name}"),
    )
}

/// Makes a machine of these settings.
#[must_use]
pub fn create(node: &Node, settings: Vec<(String, String)>) -> Call {
    let mut call = Call::new(Method::Post, format!("/nodes/{node}/qemu"));
    call.params = settings;
    call
}

/// Copies a machine or template whole, whatever it is.
#[must_use]
pub fn clone(
    node: &Node,
    from: VmId,
    to: VmId,
    name: &str,
    description: &str,
    storage: Option<&Storage>,
) -> Call {
    let call = Call::new(Method::Post, machine(node, from, "/clone"))
        .with("newid", to)
        .with("name", name)
        .with("description", description)
        .with("full", 1);
    match storage {
        Some(storage) => call.with("storage", storage),
        None => call,
    }
}

/// A machine's settings.
#[must_use]
pub fn config(node: &Node, id: VmId) -> Call {
    Call::new(Method::Get, machine(node, id, "/config"))
}

/// Changes settings.
#[must_use]
pub fn set_config(node: &Node, id: VmId, settings: Vec<(String, String)>) -> Call {
    let mut call = Call::new(Method::Put, machine(node, id, "/config"));
    call.params = settings;
    call
}

/// Grows a disk to so many GiB.
#[must_use]
pub fn resize(node: &Node, id: VmId, disk: &str, gib: u64) -> Call {
    Call::new(Method::Put, machine(node, id, "/resize"))
        .with("disk", disk)
        .with("size", format!("{gib}G"))
}

/// Whether a machine runs.
#[must_use]
pub fn status(node: &Node, id: VmId) -> Call {
    Call::new(Method::Get, machine(node, id, "/status/current"))
}

/// Powers a machine on.
#[must_use]
pub fn start(node: &Node, id: VmId) -> Call {
    Call::new(Method::Post, machine(node, id, "/status/start"))
}

/// Pulls a machine's plug.
#[must_use]
pub fn stop(node: &Node, id: VmId) -> Call {
    Call::new(Method::Post, machine(node, id, "/status/stop"))
}

/// Removes a machine with its disks.
#[must_use]
pub fn destroy(node: &Node, id: VmId) -> Call {
    Call::new(Method::Delete, machine(node, id, "")).with("purge", 1)
}

/// Makes a template of a machine.
#[must_use]
pub fn template(node: &Node, id: VmId) -> Call {
    Call::new(Method::Post, machine(node, id, "/template"))
}

/// The addresses that the guest agent tells.
#[must_use]
pub fn guest_interfaces(node: &Node, id: VmId) -> Call {
    Call::new(
        Method::Get,
        machine(node, id, "/agent/network-get-interfaces"),
    )
}

/// Breaks a task off.
#[must_use]
pub fn stop_task(task: &Upid) -> Call {
    let (node, id) = (task.node(), encoded(task.as_str()));
    Call::new(Method::Delete, format!("/nodes/{node}/tasks/{id}"))
}

/// What a task has come to.
#[must_use]
pub fn task_status(task: &Upid) -> Call {
    let (node, id) = (task.node(), encoded(task.as_str()));
    Call::new(Method::Get, format!("/nodes/{node}/tasks/{id}/status"))
}

/// A task's output.
#[must_use]
pub fn task_log(task: &Upid) -> Call {
    let (node, id) = (task.node(), encoded(task.as_str()));
    Call::new(Method::Get, format!("/nodes/{node}/tasks/{id}/log")).with("limit", 5000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_the_path() {
        let node: Node = "pve".parse().unwrap();
        let volume: Volume = "local:iso/../../x?y#z".parse().unwrap();
        let call = remove_volume(&node, &volume);
        assert_eq!(
            call.path,
            "/nodes/pve/storage/local/content/local%3Aiso%2F..%2F..%2Fx%3Fy%23z"
        );
        let upid: Upid = "UPID:pve:0001A2B3:00C0FFEE:65A0B1C2:qmcreate:101:op@pve!hf:"
            .parse()
            .unwrap();
        assert!(!task_status(&upid).path.contains('!'));
    }

    #[test]
    fn forms_are_encoded() {
        let node: Node = "pve".parse().unwrap();
        let call = set_config(
            &node,
            VmId::new(101).unwrap(),
            vec![("description".into(), "a b&c=ö\n".into())],
        );
        assert_eq!(call.form(), "description=a%20b%26c%3D%C3%B6%0A");
        assert_eq!(call.path, "/nodes/pve/qemu/101/config");
    }
}
