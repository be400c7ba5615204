//! Machines, files and tasks of the fake, as values; nothing here does IO.

use super::rules;
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

type Effect = Box<dyn FnOnce(&mut State) -> Result<(), String> + Send>;

struct Task {
    kind: String,
    polls_left: u32,
    exit: Option<String>,
    log: Vec<String>,
    effect: Option<Effect>,
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
    tasks: BTreeMap<String, Task>,
    started: u32,
}

const NODE: &str = "pve";

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

    /// Whether a task of this kind is running.
    pub fn runs(&self, kind: &str) -> bool {
        self.tasks
            .values()
            .any(|t| t.kind == kind && t.exit.is_none())
    }

    fn lacks(&self, path: &str, privilege: &str) -> Option<Reply> {
        self.lacking.contains(privilege).then(|| {
            Reply::no(
                403,
                &format!("Permission check failed ({path}, {privilege})"),
            )
        })
    }

    fn begin(
        &mut self,
        kind: &str,
        id: &str,
        log: &str,
        effect: impl FnOnce(&mut Self) -> Result<(), String> + Send + 'static,
    ) -> Reply {
        self.started += 1;
        let n = self.started;
        let upid = format!("UPID:{NODE}:{n:08X}:{n:08X}:65A0B1C2:{kind}:{id}:op@pve!holdfast:");
        let task = Task {
            kind: kind.into(),
            polls_left: 2,
            exit: None,
            log: vec![log.to_owned()],
            effect: Some(Box::new(effect)),
        };
        self.tasks.insert(upid.clone(), task);
        if self.quick {
            self.finish_all();
        }
        Reply::Data(json!(upid))
    }

    /// A worker that is interrupted removes what it made.
    fn break_off(&mut self, upid: &str) {
        let Some(task) = self.tasks.get_mut(upid).filter(|t| t.exit.is_none()) else {
            return;
        };
        task.exit = Some("interrupted by signal".into());
        task.effect = None;
        let made = matches!(task.kind.as_str(), "qmcreate" | "qmclone");
        self.vms.retain(|_, vm| !made || vm.lock.is_none());
    }

    /// As time would: tasks end whether somebody watches or not.
    pub fn finish_all(&mut self) {
        let all: Vec<String> = self.tasks.keys().cloned().collect();
        for upid in all {
            for _ in 0..4 {
                self.task_status(&upid);
            }
        }
    }

    fn task_status(&mut self, upid: &str) -> Reply {
        let Some(task) = self.tasks.get_mut(upid) else {
            return Reply::parameter("upid", "no such task");
        };
        if task.exit.is_none() && !self.held.contains(task.kind.as_str()) {
            if task.polls_left > 0 {
                task.polls_left -= 1;
            } else if let Some(effect) = task.effect.take() {
                let ended = effect(self);
                let task = self.tasks.get_mut(upid).unwrap();
                task.exit = Some(match ended {
                    Ok(()) => "OK".into(),
                    Err(why) => {
                        task.log.push(format!("TASK ERROR: {why}"));
                        why
                    }
                });
            }
        }
        match &self.tasks[upid].exit {
            None => Reply::Data(json!({ "status": "running" })),
            Some(exit) => Reply::Data(json!({ "status": "stopped", "exitstatus": exit })),
        }
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

    fn next_id(&self, params: &BTreeMap<String, String>) -> Result<Reply, Reply> {
        if let Some(id) = params.get("vmid") {
            let taken = self.vms.contains_key(&id.parse().unwrap());
            return if taken {
                Err(Reply::parameter("vmid", &format!("VM {id} already exists")))
            } else {
                Ok(Reply::Data(json!(id)))
            };
        }
        let free = (100..).find(|id| !self.vms.contains_key(id)).unwrap();
        Ok(Reply::Data(json!(free.to_string())))
    }

    fn resources(&self) -> Value {
        let list: Vec<Value> = self
            .vms
            .iter()
            .map(|(id, vm)| {
                let text = |name: &str| vm.settings.get(name).cloned().unwrap_or_default();
                json!({
                    "type": "qemu", "vmid": id, "node": NODE, "name": text("name"), "tags": text("tags"),
                    "status": if vm.running { "running" } else { "stopped" },
                    "template": u8::from(vm.template),
                })
            })
            .collect();
        json!(list)
    }

    fn remove_file(&mut self, storage: &str, volume: &str) -> Result<Reply, Reply> {
        if let Some(no) = self.lacks(&format!("/storage/{storage}"), "Datastore.Allocate") {
            return Err(no);
        }
        let volume = volume.to_owned();
        Ok(self.begin("imgdel", storage, "removing", move |state| {
            let gone = state.files.remove(&volume);
            gone.map(drop)
                .ok_or(format!("volume '{volume}' does not exist"))
        }))
    }

    fn upload(
        &mut self,
        storage: &str,
        params: &BTreeMap<String, String>,
        bytes: Vec<u8>,
    ) -> Result<Reply, Reply> {
        use sha2::Digest as _;
        if let Some(no) = self.lacks(&format!("/storage/{storage}"), "Datastore.AllocateTemplate") {
            return Err(no);
        }
        if storage != "local" {
            return Err(Reply::no(500, "can't upload to storage type 'lvmthin'"));
        }
        let (content, name) = (params["content"].clone(), params["filename"].clone());
        let (extension, magic): (&str, (usize, &[u8])) = match content.as_str() {
            "iso" => (".iso", (32769, b"CD001")),
            "import" => (".qcow2", (0, b"QFI\xfb")),
            _ => return Err(Reply::parameter("content", "not allowed")),
        };
        if !name.ends_with(extension) {
            return Err(Reply::parameter("filename", "wrong file extension"));
        }
        if !self.local_content.split(',').any(|c| c == content) {
            let words = format!("storage '{storage}' does not support '{content}' content");
            return Err(Reply::no(500, &words));
        }
        let digest = sha2::Sha256::digest(&bytes);
        let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        let expected = params["checksum"].clone();
        let good = bytes.get(magic.0..magic.0 + magic.1.len()) == Some(magic.1);
        let volume = format!("{storage}:{content}/{name}");
        let log = "starting file import from: /var/tmp/pveupload-0";
        Ok(self.begin("imgcopy", "", log, move |state| {
            if digest != expected {
                return Err(format!(
                    "checksum mismatch: got '{digest}' != expect '{expected}'"
                ));
            }
            if !good {
                return Err("not a valid file".into());
            }
            if bytes.len() as u64 > state.local_free {
                return Err("import failed: No space left on device".into());
            }
            state.files.insert(volume, bytes);
            Ok(())
        }))
    }

    fn create(&mut self, params: BTreeMap<String, String>) -> Result<Reply, Reply> {
        let id: u32 = params["vmid"].parse().unwrap();
        if let Some(no) = self.lacks(&format!("/vms/{id}"), "VM.Allocate") {
            return Err(no);
        }
        rules::check(id, &params, |path, privilege| self.lacks(path, privilege))?;
        for (name, drive) in &params {
            if name == "ide2" && !drive.contains("media=cdrom") {
                return Err(Reply::parameter(
                    name,
                    "explicit 'media=cdrom' is required for iso images",
                ));
            }
            if name == "scsi0" && !drive.starts_with("local-lvm:0,import-from=") {
                return Err(Reply::parameter(
                    name,
                    "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>",
                ));
            }
        }
        if self.vms.contains_key(&id) {
            let words =
                format!("unable to create VM {id} - VM {id} already exists on node '{NODE}'");
            return Err(Reply::no(500, &words));
        }
        let locked = Vm {
            lock: Some("create"),
            ..Vm::default()
        };
        self.vms.insert(id, locked);
        let task = self.begin(
            "qmcreate",
            &id.to_string(),
            "scsi0: importing disk",
            move |state| {
                let made = state.disks(id, &params);
                match made {
                    Ok(settings) => {
                        let vm = Vm {
                            settings,
                            ..Vm::default()
                        };
                        state.vms.insert(id, vm);
                        Ok(())
                    }
                    Err(why) => {
                        // The real one removes what it made.
                        state.vms.remove(&id);
                        Err(format!("unable to create VM {id} - {why}"))
                    }
                }
            },
        );
        Ok(task)
    }

    fn disks(
        &self,
        id: u32,
        params: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, String> {
        let mut settings = params.clone();
        settings.remove("vmid");
        if self.full {
            return Err(
                "lvcreate 'pve/vm-disk' error: insufficient free space in thin pool".into(),
            );
        }
        for name in ["scsi0", "ide2"] {
            let Some(drive) = params.get(name) else {
                continue;
            };
            let first = drive.split(',').next().unwrap_or_default();
            let source = drive
                .split("import-from=")
                .nth(1)
                .map_or(first, |s| s.split(',').next().unwrap());
            if !self.files.contains_key(source) {
                return Err(format!("volume '{source}' does not exist"));
            }
        }
        settings.insert("scsi0".into(), format!("local-lvm:vm-{id}-disk-1,size=3G"));
        Ok(settings)
    }

    fn machine(
        &mut self,
        method: &str,
        id: u32,
        rest: &[&str],
        params: BTreeMap<String, String>,
    ) -> Result<Reply, Reply> {
        let at = format!("/vms/{id}");
        let lock = self.vms[&id].lock;
        let locked = |state: &Self| {
            let lock = state.vms[&id].lock;
            lock.map_or(Ok(()), |l| {
                Err(Reply::no(500, &format!("VM is locked ({l})")))
            })
        };
        match (method, rest) {
            ("GET", ["status", "current"]) => {
                let status = if self.vms[&id].running {
                    "running"
                } else {
                    "stopped"
                };
                Ok(Reply::Data(json!({ "status": status, "lock": lock })))
            }
            ("GET", ["config"]) => {
                if let Some(no) = self.lacks(&at, "VM.Audit") {
                    return Err(no);
                }
                let mut settings = json!(self.vms[&id].settings);
                if let Some(lock) = lock {
                    settings["lock"] = json!(lock);
                }
                Ok(Reply::Data(settings))
            }
            ("PUT", ["config"]) => {
                locked(self)?;
                rules::check(id, &params, |path, privilege| self.lacks(path, privilege))?;
                if params.contains_key("ide2")
                    && let Some(no) = self.lacks(&at, "VM.Config.CDROM")
                {
                    return Err(no);
                }
                self.vms.get_mut(&id).unwrap().settings.extend(params);
                Ok(Reply::Data(Value::Null))
            }
            ("PUT", ["resize"]) => {
                locked(self)?;
                let size = params["size"].clone();
                Ok(
                    self.begin("resize", &id.to_string(), "resizing", move |state| {
                        let vm = state.vms.get_mut(&id).unwrap();
                        let disk = format!("local-lvm:vm-{id}-disk-1,size={size}");
                        vm.settings.insert(params["disk"].clone(), disk);
                        Ok(())
                    }),
                )
            }
            ("POST", ["status", verb @ ("start" | "stop")]) => {
                if let Some(no) = self.lacks(&at, "VM.PowerMgmt") {
                    return Err(no);
                }
                let on = *verb == "start";
                Ok(
                    self.begin(&format!("qm{verb}"), &id.to_string(), "", move |state| {
                        state.vms.get_mut(&id).unwrap().running = on;
                        Ok(())
                    }),
                )
            }
            ("POST", ["template"]) => {
                Ok(self.begin("qmtemplate", &id.to_string(), "", move |state| {
                    state.vms.get_mut(&id).unwrap().template = true;
                    Ok(())
                }))
            }
            ("POST", ["clone"]) => self.clone_machine(id, params),
            ("DELETE", []) => {
                if let Some(no) = self.lacks(&at, "VM.Allocate") {
                    return Err(no);
                }
                self.locked_seen += u32::from(lock.is_some());
                locked(self)?;
                if self.vms[&id].running {
                    return Err(Reply::no(
                        500,
                        &format!("VM {id} is running - destroy failed"),
                    ));
                }
                Ok(self.begin("qmdestroy", &id.to_string(), "", move |state| {
                    state.vms.remove(&id);
                    Ok(())
                }))
            }
            ("GET", ["agent", "network-get-interfaces"]) => {
                if !self.vms[&id].running {
                    return Err(Reply::no(500, &format!("VM {id} is not running")));
                }
                Ok(Reply::Data(
                    json!({ "result": [{ "name": "eth0", "ip-addresses": [
                        { "ip-address": format!("192.0.2.{}", id % 256), "ip-address-type": "ipv4", "prefix": 24 },
                    ]}]}),
                ))
            }
            _ => Err(Reply::no(
                501,
                &format!("Method '{method} {}' not implemented", rest.join("/")),
            )),
        }
    }

    fn clone_machine(
        &mut self,
        from: u32,
        params: BTreeMap<String, String>,
    ) -> Result<Reply, Reply> {
        let known = [
            "newid",
            "name",
            "description",
            "full",
            "storage",
            "target",
            "pool",
            "format",
        ];
        if let Some(name) = params.keys().find(|k| !known.contains(&k.as_str())) {
            return Err(Reply::parameter(name, "property is not defined in schema"));
        }
        let id: u32 = params["newid"].parse().unwrap();
        if let Some(no) = self.lacks(&format!("/vms/{from}"), "VM.Clone") {
            return Err(no);
        }
        if self.vms.contains_key(&id) {
            let words = format!("unable to create VM {id}: config file already exists");
            return Err(Reply::no(500, &words));
        }
        let mut copy = self.vms[&from].clone();
        copy.template = false;
        copy.lock = None;
        for name in ["name", "description"] {
            copy.settings.insert(name.into(), params[name].clone());
        }
        self.vms.insert(
            id,
            Vm {
                lock: Some("clone"),
                ..Vm::default()
            },
        );
        Ok(
            self.begin("qmclone", &from.to_string(), "copying", move |state| {
                if state.full {
                    state.vms.remove(&id);
                    return Err("clone failed: no space left".into());
                }
                state.vms.insert(id, copy);
                Ok(())
            }),
        )
    }
}
