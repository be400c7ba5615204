//! Machines, files and tasks of the fake, as values; nothing here does IO.

use super::tasks::Task;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub struct Seen<'a> {
    pub method: &'a str,
    pub path: &'a [&'a str],
    pub params: BTreeMap<String, String>,
    pub file: Option<Vec<u8>>,
}

#[derive(Debug)]
pub enum Reply {
    Data(Value),
    No {
        status: u16,
        message: String,
        errors: BTreeMap<String, String>,
    },
}

impl Reply {
    pub fn no(status: u16, message: &str) -> Self {
        Self::No {
            status,
            message: message.into(),
            errors: BTreeMap::new(),
        }
    }

    pub fn parameter(name: &str, why: &str) -> Self {
        Self::No {
            status: 400,
            message: "Parameter verification failed.".into(),
            errors: [(name.to_owned(), why.to_owned())].into(),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Vm {
    pub settings: BTreeMap<String, String>,
    pub running: bool,
    pub template: bool,
    pub lock: Option<&'static str>,
}

/// The host `pve`: `local` for files, `local-lvm` for disks.
pub struct State {
    pub version: &'static str,
    pub vms: BTreeMap<u32, Vm>,
    /// By volume, with its bytes.
    pub files: BTreeMap<String, Vec<u8>>,
    pub local_content: &'static str,
    pub local_free: u64,
    /// Privileges that the token lacks.
    pub lacking: BTreeSet<&'static str>,
    /// The disks' storage is full.
    pub full: bool,
    /// Tasks of these kinds run until the kind is taken out.
    pub held: BTreeSet<&'static str>,
    pub old_messages: bool,
    pub cut_next_create: bool,
    /// How often a locked machine was to be removed.
    pub locked_seen: u32,
    /// Tasks are not broken off.
    pub deaf: bool,
    /// Tasks end at once, watched or not.
    pub quick: bool,
    pub tasks: BTreeMap<String, Task>,
    pub started: u32,
}

pub const NODE: &str = "pve";

impl State {
    pub fn new() -> Self {
        Self {
            version: "8.4.1",
            vms: BTreeMap::new(),
            files: BTreeMap::new(),
            local_content: "iso,vztmpl,backup,import",
            local_free: 1 << 40,
            lacking: BTreeSet::new(),
            full: false,
            held: BTreeSet::new(),
            old_messages: true,
            cut_next_create: false,
            locked_seen: 0,
            deaf: false,
            quick: false,
            tasks: BTreeMap::new(),
            started: 0,
        }
    }

    pub fn lacks(&self, path: &str, privilege: &str) -> Option<Reply> {
        self.lacking.contains(privilege).then(|| {
            Reply::no(
                403,
                &format!("Permission check failed ({path}, {privilege})"),
            )
        })
    }

    pub fn handle(&mut self, seen: Seen<'_>) -> Reply {
        self.route(seen).unwrap_or_else(|no| no)
    }

    fn route(&mut self, seen: Seen<'_>) -> Result<Reply, Reply> {
        let Seen {
            method,
            path,
            params,
            file,
        } = seen;
        let data = |v: Value| Ok(Reply::Data(v));
        match (method, path) {
            ("GET", ["version"]) => data(json!({ "version": self.version, "release": "8.4" })),
            ("GET", ["nodes"]) => data(json!([{ "node": NODE, "status": "online", "maxcpu": 8 }])),
            ("GET", ["cluster", "nextid"]) => self.next_id(&params),
            ("GET", ["cluster", "resources"]) => data(self.resources()),
            ("GET", ["nodes", NODE, "storage"]) => data(json!([
                { "storage": "local", "type": "dir", "content": self.local_content, "active": 1, "avail": self.local_free },
                { "storage": "local-lvm", "type": "lvmthin", "content": "images,rootdir", "active": 1, "avail": 1_u64 << 40 },
            ])),
            ("GET", ["nodes", NODE, "storage", storage, "content"]) => {
                let prefix = format!("{storage}:{}/", params["content"]);
                let found = self.files.iter().filter(|(v, _)| v.starts_with(&prefix));
                let list: Vec<Value> = found
                    .map(|(v, bytes)| json!({ "volid": v, "size": bytes.len() }))
                    .collect();
                data(json!(list))
            }
            ("DELETE", ["nodes", NODE, "storage", storage, "content", volume]) => {
                self.remove_file(storage, volume)
            }
            ("POST", ["nodes", NODE, "storage", storage, "upload"]) => {
                self.upload(storage, &params, file.unwrap_or_default())
            }
            ("GET", ["nodes", NODE, "tasks", upid, "status"]) => Ok(self.task_status(upid)),
            ("GET", ["nodes", NODE, "tasks", upid, "log"]) => {
                let lines = self.tasks[*upid].log.iter().enumerate();
                let lines: Vec<Value> = lines.map(|(n, t)| json!({ "n": n + 1, "t": t })).collect();
                data(json!(lines))
            }
            ("DELETE", ["nodes", NODE, "tasks", upid]) => {
                if !self.deaf {
                    self.break_off(upid);
                }
                data(Value::Null)
            }
            ("POST", ["nodes", NODE, "qemu"]) => self.create(params),
            (_, ["nodes", NODE, "qemu", id, rest @ ..]) => {
                let id: u32 = id.parse().map_err(|_| Reply::no(400, "no id"))?;
                if !self.vms.contains_key(&id) {
                    let file = format!("/etc/pve/nodes/{NODE}/qemu-server/{id}.conf");
                    return Err(Reply::no(
                        500,
                        &format!("Configuration file '{file}' does not exist"),
                    ));
                }
                self.machine(method, id, rest, params)
            }
            _ => Err(Reply::no(
                501,
                &format!("Method '{method} /{}' not implemented", path.join("/")),
            )),
        }
    }
}
