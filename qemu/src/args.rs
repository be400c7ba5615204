//! QEMU's command line as a function of the description: no IO.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::firmware::Firmware;
use crate::platform::Platform;
use crate::raspi::Loaded;
use crate::spec::{DiskBus, Dog, MachineSpec, Nic, Protocol, Rtc};

/// What power-on has prepared: files in the machine's directory and the accelerator chosen.
pub(crate) struct Prepared {
    pub kvm: bool,
    /// A Raspberry Pi's kernel and device tree.
    pub raspi: Option<Loaded>,
    pub firmware: Option<Firmware>,
    /// The disk and QEMU's name of its format.
    pub disk: Option<(PathBuf, &'static str)>,
    /// The second disk, likewise.
    pub second: Option<(PathBuf, &'static str)>,
    /// The file that records the first disk's writes, and whether it holds some already.
    pub record: Option<(PathBuf, bool)>,
    pub console: PathBuf,
    pub qmp: PathBuf,
    /// Where the guest agent's port ends on the host.
    pub guest_agent: PathBuf,
    /// Our end's socket path of each link, in the description's order.
    pub link_sockets: Vec<PathBuf>,
}

/// A path as it may stand inside one of QEMU's `key=value,...` options.
fn option_path(path: &Path) -> Result<&str> {
    match path.to_str() {
        Some(text) if !text.contains(',') => Ok(text),
        _ => Err(Error::BadPath(path.to_owned())),
    }
}

/// A MAC address from the machine's name and the card's number: the same at every power-on.
pub fn mac(name: &str, card: u8) -> String {
    // FNV-1a, 32 bits: enough to tell the machines of a test apart.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    });
    let [_, a, b, c] = hash.to_be_bytes();
    // 52:54 is the locally administered range that QEMU itself uses.
    format!("52:54:{card:02x}:{a:02x}:{b:02x}:{c:02x}")
}

fn card_model(nic: Nic) -> &'static str {
    match nic {
        Nic::Virtio => "virtio-net-pci",
        Nic::E1000e => "e1000e",
        Nic::Igb => "igb",
    }
}

/// The `-device` words of disk `number`, its controller first; serials tell the disks apart.
fn disk_devices(number: usize, bus: DiskBus, place: u8) -> Vec<String> {
    let serial = match number {
        0 => "holdfast".to_owned(),
        n => format!("holdfast{n}"),
    };
    let device =
        |kind: &str| format!("{kind},drive=disk{number},serial={serial},bootindex={place}");
    match bus {
        DiskBus::VirtioBlk => vec![device("virtio-blk-pci")],
        DiskBus::VirtioScsi => vec![
            format!("virtio-scsi-pci,id=scsi{number}"),
            device(&format!("scsi-hd,bus=scsi{number}.0")),
        ],
        DiskBus::Ahci => vec![device(&format!("ide-hd,bus=ide.{number}"))],
        DiskBus::Nvme => vec![device("nvme")],
        DiskBus::Usb => vec![
            format!("qemu-xhci,id=usb{number}"),
            device(&format!("usb-storage,bus=usb{number}.0,removable=on")),
        ],
    }
}

/// QEMU's block nodes for the first disk with its writes recorded; the last is `disk0`.
fn recorded(disk: &Path, format: &str, log: &Path, begun: bool) -> Result<[String; 3]> {
    let begun = if begun { "on" } else { "off" };
    Ok([
        format!(
            "driver=file,node-name=recorded,filename={}",
            option_path(log)?
        ),
        format!(
            "driver={format},node-name=image0,discard=unmap,file.driver=file,file.discard=unmap,file.filename={}",
            option_path(disk)?
        ),
        format!(
            "driver=blklogwrites,node-name=disk0,file=image0,log=recorded,log-append={begun},log-super-update-interval=1"
        ),
    ])
}

pub(crate) fn command_line(spec: &MachineSpec, prepared: &Prepared) -> Result<Vec<String>> {
    let [machine, accel, cpu] = spec.platform.words();
    let raspi = spec.platform.is_raspi();
    let mut args: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(|&w| w.to_owned()));

    add(&[
        "-name",
        &spec.name,
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-machine",
        machine,
    ]);
    if prepared.kvm {
        add(&["-accel", "kvm", "-cpu", "host"]);
    } else {
        add(&["-accel", accel, "-cpu", cpu]);
    }
    let (memory_mib, cpus) = spec
        .platform
        .fixed()
        .unwrap_or((spec.memory_mib, spec.cpus));
    add(&["-m", &memory_mib.to_string(), "-smp", &cpus.to_string()]);
    if let Some(loaded) = &prepared.raspi {
        add(&[
            "-kernel",
            option_path(&loaded.kernel)?,
            "-dtb",
            option_path(&loaded.device_tree)?,
        ]);
    }

    if let Some(firmware) = &prepared.firmware {
        add(&[
            "-drive",
            &format!(
                "if=pflash,unit=0,format=raw,readonly=on,file={}",
                option_path(&firmware.code)?
            ),
        ]);
        add(&[
            "-drive",
            &format!(
                "if=pflash,unit=1,format=raw,file={}",
                option_path(&firmware.vars)?
            ),
        ]);
    }
    if let Some((kernel, initrd, cmdline)) = &spec.kernel {
        add(&[
            "-kernel",
            option_path(kernel)?,
            "-initrd",
            option_path(initrd)?,
            "-append",
            cmdline,
        ]);
    }
    if let Some((kernel, cmdline)) = &spec.firmware_kernel {
        add(&["-kernel", option_path(kernel)?, "-append", cmdline]);
    }
    // A kernel handed over takes the first place.
    let first = u8::from(spec.firmware_kernel.is_some());
    let (one, two) = match spec.second_first {
        false => (first, first + 1),
        true => (first + 1, first),
    };
    let second_bus = spec.second.map_or(DiskBus::default(), |(_, bus)| bus);
    let disks = [
        (&prepared.disk, spec.bus, one),
        (&prepared.second, second_bus, two),
    ];
    for (number, (disk, bus, place)) in disks.into_iter().enumerate() {
        if let Some((path, format)) = disk {
            if raspi {
                let card = format!("if=sd,format={format},file={}", option_path(path)?);
                add(&["-drive", &card]);
                continue;
            }
            match prepared.record.as_ref().filter(|_| number == 0) {
                None => add(&[
                    "-drive",
                    &format!(
                        "if=none,id=disk{number},format={format},discard=unmap,file={}",
                        option_path(path)?
                    ),
                ]),
                Some((log, begun)) => {
                    for node in recorded(path, format, log, *begun)? {
                        add(&["-blockdev", &node]);
                    }
                }
            }
            for device in disk_devices(number, bus, place) {
                add(&["-device", &device]);
            }
        }
    }

    for (i, iso) in spec.cdroms.iter().enumerate() {
        let drive = format!(
            "if=none,id=cd{i},media=cdrom,readonly=on,format=raw,file={}",
            option_path(iso)?
        );
        // ide.0 and ide.1 may be the disks'.
        let device = format!("ide-cd,drive=cd{i},bus=ide.{}", i + 2);
        add(&["-drive", &drive, "-device", &device]);
    }

    if spec.network && spec.platform != Platform::Raspi4b {
        let mut user = String::from("user,id=net0");
        if !spec.ipv4 {
            user += ",ipv4=off,ipv6=on";
        }
        for forward in &spec.forwards {
            let protocol = match forward.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            user += &format!(
                ",hostfwd={protocol}:127.0.0.1:{}-:{}",
                forward.host, forward.guest
            );
        }
        let card = format!(
            "{},netdev=net0,romfile=,mac={}",
            card_model(spec.nic),
            mac(&spec.name, 0)
        );
        let card = match raspi {
            true => format!("usb-net,netdev=net0,mac={}", mac(&spec.name, 0)),
            false => card,
        };
        add(&["-netdev", &user, "-device", &card]);
    }
    if spec.second_network {
        let last = u8::MAX;
        let card = format!(
            "{},netdev=second,romfile=,mac={}",
            card_model(spec.nic),
            mac(&spec.name, last)
        );
        // other leases than the first network's, whose begin at 10.0.2.15
        let user = "user,id=second,dhcpstart=10.0.2.50";
        add(&["-netdev", user, "-device", &card]);
    }
    for (i, (ours, switch)) in prepared.link_sockets.iter().zip(&spec.links).enumerate() {
        let card = u8::try_from(i + 1).unwrap_or(u8::MAX);
        let netdev = format!(
            "dgram,id=link{card},local.type=unix,local.path={},remote.type=unix,remote.path={}",
            option_path(ours)?,
            option_path(switch)?
        );
        let device = format!(
            "{},netdev=link{card},romfile=,mac={}",
            card_model(spec.nic),
            mac(&spec.name, card)
        );
        add(&["-netdev", &netdev, "-device", &device]);
    }

    let serial = format!(
        "file,id=console,append=on,path={}",
        option_path(&prepared.console)?
    );
    add(&["-chardev", &serial]);
    // A Raspberry Pi 3's console is its second port, the mini UART.
    if spec.platform == Platform::Raspi3b {
        add(&["-serial", "null"]);
    }
    add(&["-serial", "chardev:console"]);
    let control = format!(
        "socket,id=qmp,server=on,wait=off,path={}",
        option_path(&prepared.qmp)?
    );
    add(&["-chardev", &control, "-mon", "chardev=qmp,mode=control"]);
    if !raspi {
        add(&["-device", "virtio-rng-pci"]);
    }
    if spec.guest_agent {
        let socket = format!(
            "socket,id=qga,server=on,wait=off,path={}",
            option_path(&prepared.guest_agent)?
        );
        let port = format!("virtserialport,chardev=qga,name={}", crate::guest::PORT);
        add(&["-device", "virtio-serial-pci", "-chardev", &socket]);
        add(&["-device", &port]);
    }
    match spec.watchdog {
        _ if raspi => {}
        Dog::I6300esb => add(&["-device", "i6300esb", "-action", "watchdog=reset"]),
        Dog::Itco => add(&[
            "-global",
            "ICH9-LPC.noreboot=off",
            "-action",
            "watchdog=reset",
        ]),
        Dog::None => {}
    }
    if spec.no_reboot {
        add(&["-no-reboot"]);
    }
    match &spec.rtc {
        _ if raspi => {}
        Rtc::Host => add(&["-rtc", "base=utc,clock=host"]),
        Rtc::Epoch => add(&["-rtc", "base=1970-01-01T00:00:00,clock=vm"]),
        Rtc::At(time) => add(&["-rtc", &format!("base={time},clock=vm")]),
    }
    for (name, file) in &spec.fw_cfg {
        add(&[
            "-fw_cfg",
            &format!("name={name},file={}", option_path(file)?),
        ]);
    }
    let told = [("serial", &spec.smbios.serial), ("uuid", &spec.smbios.uuid)];
    let mut table = String::from("type=1");
    for (field, value) in told {
        if let Some(value) = value {
            // QEMU reads a doubled comma as one that belongs to the value.
            table += &format!(",{field}={}", value.replace(',', ",,"));
        }
    }
    if table != "type=1" {
        add(&["-smbios", &table]);
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared() -> Prepared {
        Prepared {
            kvm: false,
            raspi: None,
            firmware: None,
            disk: Some((PathBuf::from("/d/disk.qcow2"), "qcow2")),
            second: None,
            record: None,
            console: PathBuf::from("/d/console.log"),
            qmp: PathBuf::from("/s/qmp"),
            guest_agent: PathBuf::from("/s/qga"),
            link_sockets: Vec::new(),
        }
    }

    #[test]
    fn forwards_seed_and_clock_stand_on_the_command_line() {
        let spec = MachineSpec::new("n1")
            .forward_tcp(18443, 8443)
            .seed(Path::new("/x/seed.toml"))
            .rtc(Rtc::Epoch);
        let line = command_line(&spec, &prepared()).unwrap().join(" ");
        assert!(line.contains("hostfwd=tcp:127.0.0.1:18443-:8443"), "{line}");
        assert!(
            line.contains("name=opt/holdfast/seed,file=/x/seed.toml"),
            "{line}"
        );
        assert!(line.contains("base=1970-01-01"), "{line}");
        assert!(line.contains("i6300esb"), "{line}");
    }

    #[test]
    fn smbios_and_cds_stand_on_the_command_line() {
        let bare = command_line(&MachineSpec::new("n1"), &prepared()).unwrap();
        assert!(!bare.iter().any(|a| a == "-smbios"), "{bare:?}");
        let spec = MachineSpec::new("n1")
            .smbios_serial("a,b=")
            .smbios_uuid("6d2a2c0e-3d52-4e6b-9a53-0f6a1f3c9b77")
            .cdrom(Path::new("/x/a.iso"))
            .cdrom(Path::new("/x/b.iso"));
        let line = command_line(&spec, &prepared()).unwrap().join(" ");
        for words in [
            "-smbios type=1,serial=a,,b=,uuid=6d2a2c0e-3d52-4e6b-9a53-0f6a1f3c9b77",
            "file=/x/a.iso -device ide-cd,drive=cd0,bus=ide.2",
            "file=/x/b.iso -device ide-cd,drive=cd1,bus=ide.3",
        ] {
            assert!(line.contains(words), "{line}");
        }
        let comma = MachineSpec::new("n1").cdrom(Path::new("/x/a,b.iso"));
        assert!(matches!(
            command_line(&comma, &prepared()),
            Err(Error::BadPath(_))
        ));
    }

    #[test]
    fn a_stick_beside_a_disk_with_real_cards_and_the_chipsets_watchdog() {
        let both = Prepared {
            second: Some((PathBuf::from("/d/second.img"), "raw")),
            ..prepared()
        };
        let spec = MachineSpec::new("n1")
            .bus(DiskBus::Usb)
            .second_disk(1 << 30, DiskBus::Nvme)
            .nic(Nic::E1000e)
            .itco();
        let line = command_line(&spec, &both).unwrap().join(" ");
        for words in [
            "usb-storage,bus=usb0.0,removable=on,drive=disk0,serial=holdfast,bootindex=0",
            "nvme,drive=disk1,serial=holdfast1,bootindex=1",
            "e1000e,netdev=net0",
            "ICH9-LPC.noreboot=off",
        ] {
            assert!(line.contains(words), "{words}: {line}");
        }
        assert!(!line.contains("i6300esb"), "{line}");
        let line = command_line(&spec.second_disk_first(), &both)
            .unwrap()
            .join(" ");
        assert!(line.contains("serial=holdfast1,bootindex=0"), "{line}");
    }

    #[test]
    fn a_recorded_disk_stands_behind_its_recorder() {
        let with = Prepared {
            record: Some((PathBuf::from("/d/writes.log"), true)),
            ..prepared()
        };
        let line = command_line(&MachineSpec::new("n1"), &with)
            .unwrap()
            .join(" ");
        for words in [
            "driver=qcow2,node-name=image0",
            "driver=blklogwrites,node-name=disk0,file=image0,log=recorded,log-append=on",
            "virtio-blk-pci,drive=disk0",
        ] {
            assert!(line.contains(words), "{words}: {line}");
        }
        assert!(!line.contains("if=none,id=disk0"), "{line}");
    }

    #[test]
    fn a_comma_in_a_path_is_refused_not_misread() {
        let spec = MachineSpec::new("n1").seed(Path::new("/x/a,b"));
        assert!(matches!(
            command_line(&spec, &prepared()),
            Err(Error::BadPath(_))
        ));
    }

    #[test]
    fn cards_and_machines_have_different_addresses() {
        assert_ne!(mac("a", 0), mac("b", 0));
        assert_ne!(mac("a", 0), mac("a", 1));
    }
}
