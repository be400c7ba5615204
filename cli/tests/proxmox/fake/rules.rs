//! What the API refuses in a machine's settings.

use super::state::Reply;
use std::collections::BTreeMap;

/// The settings that `qemu-server` documents, as far as they matter here.
const KNOWN: [&str; 31] = [
    "vmid",
    "name",
    "ostype",
    "bios",
    "machine",
    "memory",
    "cores",
    "sockets",
    "cpu",
    "scsihw",
    "efidisk0",
    "scsi0",
    "scsi1",
    "ide2",
    "boot",
    "net0",
    "serial0",
    "vga",
    "watchdog",
    "agent",
    "rng0",
    "smbios1",
    "tags",
    "description",
    "args",
    "onboot",
    "balloon",
    "hookscript",
    "digest",
    "delete",
    "pool",
];

/// Which privilege a setting needs, beside those of drives.
fn privilege(name: &str) -> Option<&'static str> {
    Some(match name {
        "cores" | "sockets" | "cpu" => "VM.Config.CPU",
        "memory" | "balloon" => "VM.Config.Memory",
        "machine" | "scsihw" | "smbios1" | "vga" | "watchdog" | "serial0" | "rng0" => {
            "VM.Config.HWType"
        }
        "agent" | "bios" | "description" | "name" | "onboot" | "ostype" | "tags" => {
            "VM.Config.Options"
        }
        "boot" => "VM.Config.Disk",
        "net0" => "VM.Config.Network",
        _ => return None,
    })
}

/// Settings of a machine that is made or changed.
pub fn check(
    id: u32,
    settings: &BTreeMap<String, String>,
    lacks: impl Fn(&str, &str) -> Option<Reply>,
) -> Result<(), Reply> {
    for (name, value) in settings {
        if !KNOWN.contains(&name.as_str()) {
            return Err(Reply::parameter(
                name,
                "property is not defined in schema and the schema does not allow additional properties",
            ));
        }
        if name == "args" || name == "hookscript" {
            return Err(Reply::no(
                500,
                &format!("only root can set '{name}' config"),
            ));
        }
        if name == "smbios1" && value.len() > 512 {
            return Err(Reply::parameter(
                name,
                "value may only be 512 characters long",
            ));
        }
        if name == "name" && value.contains('_') {
            return Err(Reply::parameter(
                name,
                "invalid format - value does not look like a valid DNS name",
            ));
        }
        if let Some(privilege) = privilege(name)
            && let Some(no) = lacks(&format!("/vms/{id}"), privilege)
        {
            return Err(no);
        }
    }
    let net = settings.get("net0").and_then(|n| n.split("bridge=").nth(1));
    if let Some(bridge) = net {
        let path = format!("/sdn/zones/localnetwork/{bridge}");
        if let Some(no) = lacks(&path, "SDN.Use") {
            return Err(no);
        }
    }
    Ok(())
}
