//! What the guest agent tells of this machine.

use super::wire::{Outcome, Refusal};
use holdfast_core::image::ImageInfo;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use nix::sys::statvfs::statvfs;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// System and versions.
pub fn os(image: &ImageInfo) -> Outcome {
    let kernel = nix::sys::utsname::uname().map_err(|e| Refusal::generic(e.to_string()))?;
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    Ok(json!({
        "id": "holdfast",
        "name": "Holdfast",
        "pretty-name": format!("Holdfast {}", image.version),
        "version": image.version,
        "version-id": image.version,
        "variant": format!("{} on {}", image.recipe, image.board),
        "variant-id": image.recipe,
        "kernel-release": text(kernel.release()),
        "kernel-version": text(kernel.version()),
        "machine": text(kernel.machine()),
    }))
}

/// The node's name.
pub fn host_name() -> Outcome {
    let name = nix::unistd::gethostname().map_err(|e| Refusal::generic(e.to_string()))?;
    Ok(json!({ "host-name": name.to_string_lossy() }))
}

/// Nanoseconds since 1970.
pub fn time() -> Outcome {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| Refusal::generic("the clock stands before 1970"))?;
    Ok(json!(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
}

/// One address as the kernel tells it.
struct Told {
    interface: String,
    address: Option<SockaddrStorage>,
    mask: Option<SockaddrStorage>,
}

/// Interfaces with their addresses.
pub fn interfaces() -> Outcome {
    let all = getifaddrs().map_err(|e| Refusal::generic(e.to_string()))?;
    let told = all.map(|a| Told {
        interface: a.interface_name,
        address: a.address,
        mask: a.netmask,
    });
    let mut list = collect(told);
    for one in &mut list {
        if let Some(counters) = one["name"].as_str().and_then(statistics) {
            one["statistics"] = counters;
        }
    }
    Ok(Value::Array(list))
}

fn collect(told: impl Iterator<Item = Told>) -> Vec<Value> {
    let mut found: BTreeMap<String, (Option<String>, Vec<Value>)> = BTreeMap::new();
    for one in told {
        let (mac, addresses) = found.entry(one.interface).or_default();
        let Some(address) = one.address else { continue };
        let mask = one.mask;
        if let Some(link) = address.as_link_addr() {
            *mac = link.addr().map(|a| {
                let parts: Vec<String> = a.iter().map(|b| format!("{b:02x}")).collect();
                parts.join(":")
            });
        } else if let Some(v4) = address.as_sockaddr_in() {
            let prefix =
                mask.and_then(|m| m.as_sockaddr_in().map(|m| u32::from(m.ip()).leading_ones()));
            addresses.push(entry("ipv4", v4.ip().to_string(), prefix));
        } else if let Some(v6) = address.as_sockaddr_in6() {
            let prefix = mask.and_then(|m| {
                m.as_sockaddr_in6()
                    .map(|m| u128::from(m.ip()).leading_ones())
            });
            addresses.push(entry("ipv6", v6.ip().to_string(), prefix));
        }
    }
    found
        .into_iter()
        .map(|(name, (mac, addresses))| {
            let mut one = Map::new();
            one.insert("name".into(), json!(name));
            if let Some(mac) = mac {
                one.insert("hardware-address".into(), json!(mac));
            }
            one.insert("ip-addresses".into(), Value::Array(addresses));
            Value::Object(one)
        })
        .collect()
}

fn entry(kind: &str, address: String, prefix: Option<u32>) -> Value {
    json!({ "ip-address": address, "ip-address-type": kind, "prefix": prefix.unwrap_or(0) })
}

/// Counters of an interface (kernel: `Documentation/ABI/testing/sysfs-class-net-statistics`).
fn statistics(interface: &str) -> Option<Value> {
    let directory = std::path::Path::new("/sys/class/net")
        .join(interface)
        .join("statistics");
    let mut counters = Map::new();
    for (name, file) in [
        ("rx-bytes", "rx_bytes"),
        ("rx-packets", "rx_packets"),
        ("rx-errs", "rx_errors"),
        ("rx-dropped", "rx_dropped"),
        ("tx-bytes", "tx_bytes"),
        ("tx-packets", "tx_packets"),
        ("tx-errs", "tx_errors"),
        ("tx-dropped", "tx_dropped"),
    ] {
        let text = std::fs::read_to_string(directory.join(file)).ok()?;
        counters.insert(name.into(), json!(text.trim().parse::<u64>().ok()?));
    }
    Some(Value::Object(counters))
}

/// The file systems on the node's disk.
pub fn file_systems() -> Outcome {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut list = vec![];
    for (device, at, kind) in on_disk(&mounts) {
        let mut one = json!({
            "name": device.rsplit('/').next().unwrap_or(device),
            "mountpoint": at,
            "type": kind,
            "disk": [],
        });
        if let Ok(size) = statvfs(at) {
            let unit = size.fragment_size();
            one["total-bytes"] = json!(unit.saturating_mul(size.blocks()));
            let used = size.blocks().saturating_sub(size.blocks_free());
            one["used-bytes"] = json!(unit.saturating_mul(used));
        }
        list.push(one);
    }
    Ok(Value::Array(list))
}

/// Device, place and kind of `/` and `/var` in the text of `/proc/mounts`.
fn on_disk(mounts: &str) -> Vec<(&str, &str, &str)> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?, words.next()?))
        })
        .filter(|(device, at, _)| device.starts_with("/dev/") && matches!(*at, "/" | "/var"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_loopback_is_told_with_its_prefix() {
        let list = interfaces().unwrap();
        let lo = list
            .as_array()
            .unwrap()
            .iter()
            .find(|i| i["name"] == "lo")
            .unwrap();
        let v4 = json!({"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8});
        assert!(lo["ip-addresses"].as_array().unwrap().contains(&v4), "{lo}");
        assert_eq!(lo["hardware-address"], "00:00:00:00:00:00");
        assert!(lo["statistics"]["rx-bytes"].is_u64(), "{lo}");
    }

    #[test]
    fn only_what_lies_on_the_disk_is_told() {
        let mounts = "rootfs / rootfs rw 0 0\n/dev/dm-0 / squashfs ro 0 0\ntmpfs /run tmpfs rw 0 0\n\
                      /dev/vda10 /var ext4 rw 0 0\n/dev/vda10 /etc/rancher ext4 rw 0 0\n";
        assert_eq!(
            on_disk(mounts),
            [
                ("/dev/dm-0", "/", "squashfs"),
                ("/dev/vda10", "/var", "ext4")
            ]
        );
    }
}
