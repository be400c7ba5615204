use std::path::{Path, PathBuf};

use crate::accel::Accel;
use crate::platform::Platform;

/// How the disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskBus {
    /// `virtio-blk-pci`: `/dev/vda`.
    #[default]
    VirtioBlk,
    /// `virtio-scsi-pci`: `/dev/sda`.
    VirtioScsi,
    /// `ich9-ahci`: `/dev/sda` through SATA.
    Ahci,
    /// `nvme`: `/dev/nvme0n1`.
    Nvme,
    /// `usb-storage` behind `qemu-xhci`, removable: a stick, `/dev/sda`.
    Usb,
}

/// A kind of network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nic {
    /// `virtio-net-pci`.
    #[default]
    Virtio,
    /// Intel 82574L (driver `e1000e`).
    E1000e,
    /// Intel 82576 (driver `igb`).
    Igb,
}

/// One of a machine's network cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// The one with the user-mode network.
    User,
    /// [`MachineSpec::second_network`]'s.
    Second,
    /// The one of a switch, in the order in which they were plugged in, from 0.
    Link(usize),
}

/// The machine's hardware watchdog; it resets the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Dog {
    /// `i6300esb`, as Proxmox has it.
    #[default]
    I6300esb,
    /// The TCO timer of q35's ICH9, with its no-reboot strap off.
    Itco,
    None,
}

/// What the machine's clock says at power-on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Rtc {
    /// The host's time.
    #[default]
    Host,
    /// 1970-01-01: a machine without a battery.
    Epoch,
    /// A date and time, `YYYY-MM-DDTHH:MM:SS`, UTC.
    At(String),
}

/// Transport of a forwarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host's loopback that leads into the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Transport.
    pub protocol: Protocol,
    /// Port on 127.0.0.1.
    pub host: u16,
    /// Port in the machine.
    pub guest: u16,
}

/// What the firmware's SMBIOS table 1 says (DMTF DSP0134, 7.2); the rest is QEMU's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Smbios {
    pub serial: Option<String>,
    pub uuid: Option<String>,
}

/// A machine, described. A value: nothing runs until [`crate::Machine::create`] and `power_on`.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    pub(crate) platform: Platform,
    pub(crate) name: String,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) accel: Accel,
    pub(crate) image: Option<PathBuf>,
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) bus: DiskBus,
    /// Bytes and bus of one more, empty disk.
    pub(crate) second: Option<(u64, DiskBus)>,
    pub(crate) second_first: bool,
    pub(crate) record: Option<PathBuf>,
    pub(crate) nic: Nic,
    pub(crate) kernel: Option<(PathBuf, PathBuf, String)>,
    pub(crate) firmware_kernel: Option<(PathBuf, String)>,
    pub(crate) forwards: Vec<Forward>,
    pub(crate) network: bool,
    pub(crate) ipv4: bool,
    pub(crate) second_network: bool,
    pub(crate) links: Vec<PathBuf>,
    pub(crate) fw_cfg: Vec<(String, PathBuf)>,
    pub(crate) smbios: Smbios,
    pub(crate) cdroms: Vec<PathBuf>,
    pub(crate) rtc: Rtc,
    pub(crate) watchdog: Dog,
    pub(crate) guest_agent: bool,
    pub(crate) no_reboot: bool,
    pub(crate) dir: Option<PathBuf>,
}

impl MachineSpec {
    /// A machine of 1 GiB and 2 CPUs with network and watchdog, without a disk.
    pub fn new(name: &str) -> Self {
        Self {
            platform: Platform::default(),
            name: name.to_owned(),
            memory_mib: 1024,
            cpus: 2,
            accel: Accel::Auto,
            image: None,
            disk_bytes: None,
            bus: DiskBus::default(),
            second: None,
            second_first: false,
            record: None,
            nic: Nic::default(),
            kernel: None,
            firmware_kernel: None,
            forwards: Vec::new(),
            network: true,
            ipv4: true,
            second_network: false,
            links: Vec::new(),
            fw_cfg: Vec::new(),
            smbios: Smbios::default(),
            cdroms: Vec::new(),
            rtc: Rtc::default(),
            watchdog: Dog::default(),
            guest_agent: false,
            no_reboot: false,
            dir: None,
        }
    }

    /// Another kind of machine. A Raspberry Pi's board fixes memory, processors, disk bus and network
    /// card; its card is rounded up to a power of two, as QEMU's SD card wants.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Virtual CPUs.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Which accelerator.
    #[must_use]
    pub fn accel(mut self, accel: Accel) -> Self {
        self.accel = accel;
        self
    }

    /// Boots a copy-on-write overlay of this image (raw or qcow2); the image itself is never written.
    /// A machine directory that already has its overlay goes on with it.
    #[must_use]
    pub fn image(mut self, image: &Path) -> Self {
        self.image = Some(image.to_owned());
        self
    }

    /// Size of the disk the machine sees, in bytes: an overlay larger than its image is the SD card
    /// larger than what was flashed. Never shrinks.
    #[must_use]
    pub fn disk_bytes(mut self, bytes: u64) -> Self {
        self.disk_bytes = Some(bytes);
        self
    }

    /// How the disk is attached.
    #[must_use]
    pub fn bus(mut self, bus: DiskBus) -> Self {
        self.bus = bus;
        self
    }

    /// One more disk, empty at first, of so many bytes; the firmware asks it after the first.
    #[must_use]
    pub fn second_disk(mut self, bytes: u64, bus: DiskBus) -> Self {
        self.second = Some((bytes, bus));
        self
    }

    /// Every write and flush of the first disk, in order, into a new file at `log`, in the format of the
    /// kernel's dm-log-writes target (Linux `Documentation/admin-guide/device-mapper/log-writes.rst`).
    #[must_use]
    pub fn record_writes(mut self, log: &Path) -> Self {
        self.record = Some(log.to_owned());
        self
    }

    /// The firmware asks the second disk before the first.
    #[must_use]
    pub fn second_disk_first(mut self) -> Self {
        self.second_first = true;
        self
    }

    /// What kind of network cards.
    #[must_use]
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nic = nic;
        self
    }

    /// Skips firmware and loader: boots this kernel and initramfs with this command line.
    #[must_use]
    pub fn kernel(mut self, kernel: &Path, initrd: &Path, cmdline: &str) -> Self {
        self.kernel = Some((kernel.to_owned(), initrd.to_owned(), cmdline.to_owned()));
        self
    }

    /// The firmware runs, and starts this kernel with this command line in place of a boot loader.
    #[must_use]
    pub fn firmware_kernel(mut self, kernel: &Path, cmdline: &str) -> Self {
        self.firmware_kernel = Some((kernel.to_owned(), cmdline.to_owned()));
        self
    }

    /// Forwards a TCP port of 127.0.0.1 into the machine.
    #[must_use]
    pub fn forward_tcp(mut self, host: u16, guest: u16) -> Self {
        self.forwards.push(Forward {
            protocol: Protocol::Tcp,
            host,
            guest,
        });
        self
    }

    /// Forwards a UDP port of 127.0.0.1 into the machine.
    #[must_use]
    pub fn forward_udp(mut self, host: u16, guest: u16) -> Self {
        self.forwards.push(Forward {
            protocol: Protocol::Udp,
            host,
            guest,
        });
        self
    }

    /// No user-mode network: the machine has no way out but its links and the second network.
    #[must_use]
    pub fn no_network(mut self) -> Self {
        self.network = false;
        self
    }

    /// The user-mode network has no IPv4: a router advertises fec0::/64, and the host's loopback
    /// (::1) is at fec0::2. Ports of the host cannot be forwarded then.
    #[must_use]
    pub fn without_ipv4(mut self) -> Self {
        self.ipv4 = false;
        self
    }

    /// One more network card with a user-mode network of its own, of the same addresses: a second
    /// way into one LAN.
    #[must_use]
    pub fn second_network(mut self) -> Self {
        self.second_network = true;
        self
    }

    /// One more network card, plugged into this switch.
    #[must_use]
    pub fn link(mut self, switch: &crate::Switch) -> Self {
        self.links.push(switch.socket().to_owned());
        self
    }

    /// The seed, handed over as `fw_cfg` entry `opt/holdfast/seed`. The file is read at power-on.
    #[must_use]
    pub fn seed(self, file: &Path) -> Self {
        self.fw_cfg("opt/holdfast/seed", file)
    }

    /// Any `fw_cfg` entry; QEMU wants names of users' entries to start with `opt/`.
    #[must_use]
    pub fn fw_cfg(mut self, name: &str, file: &Path) -> Self {
        self.fw_cfg.push((name.to_owned(), file.to_owned()));
        self
    }

    /// The serial number of SMBIOS' table 1: the one that Proxmox' `smbios1: serial=` sets.
    #[must_use]
    pub fn smbios_serial(mut self, text: &str) -> Self {
        self.smbios.serial = Some(text.to_owned());
        self
    }

    /// The machine's UUID in SMBIOS' table 1, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`. Without it
    /// the field is all zeros, which means none.
    #[must_use]
    pub fn smbios_uuid(mut self, uuid: &str) -> Self {
        self.smbios.uuid = Some(uuid.to_owned());
        self
    }

    /// A SATA CD drive with this image in it; up to five.
    #[must_use]
    pub fn cdrom(mut self, iso: &Path) -> Self {
        self.cdroms.push(iso.to_owned());
        self
    }

    /// What the clock says at power-on.
    #[must_use]
    pub fn rtc(mut self, rtc: Rtc) -> Self {
        self.rtc = rtc;
        self
    }

    /// Without a watchdog that resets.
    #[must_use]
    pub fn no_watchdog(mut self) -> Self {
        self.watchdog = Dog::None;
        self
    }

    /// With the chipset's TCO timer as its watchdog, in place of the i6300esb.
    #[must_use]
    pub fn itco(mut self) -> Self {
        self.watchdog = Dog::Itco;
        self
    }

    /// With a virtio port for the guest agent, which [`crate::Machine::guest_agent`] talks to.
    #[must_use]
    pub fn guest_agent(mut self) -> Self {
        self.guest_agent = true;
        self
    }

    /// QEMU ends where the machine would reboot.
    #[must_use]
    pub fn no_reboot(mut self) -> Self {
        self.no_reboot = true;
        self
    }

    /// Keeps overlay, firmware variables and console log in this directory (made if missing).
    /// Without it they live in a temporary one that goes with the machine, unless a test panicked.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}
