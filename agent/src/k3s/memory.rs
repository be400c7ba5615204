//! The machine's memory, and whether it is enough for k3s.

/// With less `MemTotal` than this k3s is not started, in bytes. k3s's documentation ("Resource
/// Profiling") measured 1.2 GB for a server with one agent on a Raspberry Pi 4; 1 GB (a Pi 3, which
/// shows about 900 MiB) may do without its extras, 512 MB cannot: it would be out of memory at once,
/// and take the mesh with it.
const ENOUGH: u64 = 700 << 20;

/// The kernel's table, `/proc/meminfo` (proc(5)); empty where it cannot be read.
pub fn table() -> String {
    std::fs::read_to_string("/proc/meminfo").unwrap_or_default()
}

/// Why k3s is not started on the machine with this `/proc/meminfo`; one that does not say how much
/// memory it has hinders nothing.
pub fn hindrance(meminfo: &str) -> Option<String> {
    let total = bytes(meminfo, "MemTotal").filter(|total| *total < ENOUGH)?;
    Some(format!(
        "k3s does not run: this machine has {} MiB of memory, k3s needs {} MiB at least; role bare \
         is what it can do (holdfast seed new --role bare --rejoin)",
        total >> 20,
        ENOUGH >> 20
    ))
}

/// A line of `/proc/meminfo`, in bytes.
pub fn bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_from_the_kernels_table() {
        let table = "MemTotal:       2048 kB\nMemTotalX: 1 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(bytes(table, "MemTotal"), Some(2 << 20));
        assert_eq!(bytes(table, "MemAvailable"), Some(1 << 20));
        for bad in ["nonsense", "MemAvailable: much kB", "MemAvailable"] {
            assert_eq!(bytes(bad, "MemAvailable"), None, "{bad}");
        }
    }

    #[test]
    fn k3s_is_kept_from_a_machine_with_512_mb() {
        let of = |mib: u64| hindrance(&format!("MemTotal: {} kB\n", mib << 10));
        // Raspberry Pi Zero 2 W, and a Pi 3 in QEMU.
        let why = of(461).unwrap();
        assert!(
            why.contains("461 MiB") && why.contains("700 MiB") && why.contains("role bare"),
            "{why}"
        );
        assert!(of(699).is_some());
        assert_eq!(of(700), None);
        assert_eq!(of(906), None);
        assert_eq!(hindrance(""), None);
    }
}
