//! Machines: made, copied, changed, started, removed.

use super::rules;
use super::state::{NODE, Reply, State, Vm};
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl State {
    pub fn next_id(&self, params: &BTreeMap<String, String>) -> Result<Reply, Reply> {
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

    pub fn resources(&self) -> Value {
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

    pub fn create(&mut self, params: BTreeMap<String, String>) -> Result<Reply, Reply> {
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

    pub fn disks(
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

    pub fn machine(
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

    pub fn clone_machine(
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
