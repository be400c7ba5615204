//! A Holdfast machine as the API wants it, and the marks by which one is known again.

use crate::names::{Bridge, MachineName, Storage, VmId, Volume};

/// The tag of each machine that Holdfast made.
pub const TAG: &str = "holdfast";
/// Begins the line of a machine's description that names its drive.
const MARK: &str = "holdfast-cidata: ";
/// The disk.
pub const DISK: &str = "scsi0";
/// Where the `cidata` drive is plugged in.
pub const DRIVE: &str = "ide2";
/// Proxmox takes no longer `smbios1` (format `pve-qm-smbios1`), in characters.
pub const LONGEST_SMBIOS: usize = 512;

/// Why a machine cannot be described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMachine {
    /// SMBIOS.
    #[error("SMBIOS takes {len} characters with its names; Proxmox takes {LONGEST_SMBIOS}")]
    Smbios {
        /// How many.
        len: usize,
    },
}

/// SMBIOS type 1, as far as Proxmox lets it be set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Smbios {
    /// The machine's UUID.
    pub uuid: String,
    /// Serial number: a seed in short form may be handed over here.
    pub serial: Option<String>,
}

impl Smbios {
    /// The value of `smbios1`; both are of the characters that it takes as they are.
    ///
    /// # Errors
    /// [`BadMachine::Smbios`].
    pub fn setting(&self) -> Result<String, BadMachine> {
        let mut text = format!("uuid={}", self.uuid);
        if let Some(serial) = &self.serial {
            text += &format!(",serial={serial}");
        }
        if text.len() > LONGEST_SMBIOS {
            return Err(BadMachine::Smbios { len: text.len() });
        }
        Ok(text)
    }
}

/// A machine to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its number.
    pub id: VmId,
    /// Its name.
    pub name: MachineName,
    /// MiB.
    pub memory: u32,
    /// Virtual CPUs.
    pub cores: u32,
    /// The network's bridge.
    pub bridge: Bridge,
    /// Where its disks go.
    pub storage: Storage,
    /// The image that its disk is made of.
    pub image: Volume,
    /// The drive with its seed.
    pub drive: Option<Volume>,
    /// Who it is to its firmware.
    pub smbios: Smbios,
}

impl Machine {
    /// The parameters of `POST /nodes/N/qemu`: UEFI without keys (Secure Boot off), a virtio-scsi
    /// disk, a serial console, the watchdog that the loader arms, the guest agent's port.
    ///
    /// # Errors
    /// [`BadMachine`].
    pub fn settings(&self) -> Result<Vec<(String, String)>, BadMachine> {
        let storage = &self.storage;
        let mut settings = vec![
            ("vmid", self.id.to_string()),
            ("name", self.name.to_string()),
            ("ostype", "l26".into()),
            ("bios", "ovmf".into()),
            ("machine", "q35".into()),
            ("memory", self.memory.to_string()),
            ("cores", self.cores.to_string()),
            ("cpu", "host".into()),
            ("scsihw", "virtio-scsi-single".into()),
            (
                "efidisk0",
                format!("{storage}:1,efitype=4m,pre-enrolled-keys=0"),
            ),
            (
                DISK,
                format!(
                    "{storage}:0,import-from={},discard=on,iothread=1",
                    self.image
                ),
            ),
            ("boot", format!("order={DISK}")),
            ("net0", format!("virtio,bridge={}", self.bridge)),
            ("serial0", "socket".into()),
            ("vga", "serial0".into()),
            ("watchdog", "model=i6300esb,action=reset".into()),
            ("agent", "enabled=1".into()),
            ("rng0", "source=/dev/urandom".into()),
            ("smbios1", self.smbios.setting()?),
            ("tags", TAG.into()),
            ("description", description(self.drive.as_ref())),
        ];
        if let Some(drive) = &self.drive {
            settings.push((DRIVE, plugged(drive)));
        }
        Ok(settings.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }
}

/// The setting that plugs a `cidata` drive in.
#[must_use]
pub fn plugged(drive: &Volume) -> String {
    format!("{drive},media=cdrom")
}

/// A machine's description: for people, and with its drive's name.
#[must_use]
pub fn description(drive: Option<&Volume>) -> String {
    let mut text = String::from("A Holdfast node. `holdfast proxmox destroy` removes it.\n");
    if let Some(drive) = drive {
        text += &format!("\n{MARK}{drive}\n");
    }
    text
}

/// The name of a machine's `cidata` drive.
#[must_use]
pub fn drive_file(id: VmId, name: &MachineName) -> String {
    format!("holdfast-{id}-{name}.iso")
}

/// Whose drive a file is by its name, if Holdfast made it.
#[must_use]
pub fn drive_owner(volume: &Volume) -> Option<VmId> {
    let name = volume.file_name().strip_prefix("holdfast-")?;
    name.strip_suffix(".iso")?.split_once('-')?.0.parse().ok()
}

/// The drive that a machine's description names. Anyone who may edit it may write another there: only
/// one whose name says that it belongs to this machine counts.
#[must_use]
pub fn drive_of(id: VmId, description: &str) -> Option<Volume> {
    let line = description.lines().find_map(|l| l.strip_prefix(MARK))?;
    let volume: Volume = line.trim().parse().ok()?;
    let ours =
        volume.to_string() == Volume::file(volume.storage(), "iso", volume.file_name()).to_string();
    (ours && drive_owner(&volume) == Some(id)).then_some(volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> VmId {
        VmId::new(n).unwrap()
    }

    #[test]
    fn a_machine_is_described_as_the_api_wants_it() {
        let machine = Machine {
            id: id(101),
            name: "n1".parse().unwrap(),
            memory: 2048,
            cores: 2,
            bridge: "vmbr0".parse().unwrap(),
            storage: "local-lvm".parse().unwrap(),
            image: "local:import/x.qcow2".parse().unwrap(),
            drive: Some("local:iso/holdfast-101-n1.iso".parse().unwrap()),
            smbios: Smbios::default(),
        };
        let settings = machine.settings().unwrap();
        let get = |name: &str| &settings.iter().find(|(n, _)| n == name).unwrap().1;
        assert_eq!(
            get("efidisk0"),
            "local-lvm:1,efitype=4m,pre-enrolled-keys=0"
        );
        assert_eq!(
            get("scsi0"),
            "local-lvm:0,import-from=local:import/x.qcow2,discard=on,iothread=1"
        );
        assert_eq!(get("ide2"), "local:iso/holdfast-101-n1.iso,media=cdrom");
        assert!(
            !settings.iter().any(|(n, _)| n == "args"),
            "refused to tokens"
        );
    }

    #[test]
    fn smbios_has_an_end() {
        let with = |n: usize| Smbios {
            uuid: "0d3c1c0a-0000-4000-8000-000000000000".into(),
            serial: Some("x".repeat(n)),
        };
        assert!(with(400).setting().unwrap().len() <= LONGEST_SMBIOS);
        assert!(matches!(with(500).setting(), Err(BadMachine::Smbios { len }) if len > 512));
    }

    #[test]
    fn only_a_machines_own_drive_is_found_in_its_description() {
        let drive: Volume = "local:iso/holdfast-101-n1.iso".parse().unwrap();
        let text = description(Some(&drive));
        assert_eq!(drive_of(id(101), &text), Some(drive));
        assert_eq!(drive_of(id(102), &text), None);
        assert_eq!(drive_of(id(101), &description(None)), None);
        for foreign in [
            "local:iso/debian.iso",
            "local:backup/holdfast-101-n1.iso",
            "local:iso/../x/holdfast-101-n1.iso",
            "local-lvm:vm-100-disk-0",
        ] {
            assert_eq!(
                drive_of(id(101), &format!("{MARK}{foreign}")),
                None,
                "{foreign}"
            );
        }
    }
}
