//! From nothing to a running system, step by step.

mod drivers;
mod storage;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use holdfast_core::cluster::MESH_INTERFACE;
use holdfast_core::image::{IMAGE_JSON, ImageInfo, PROVIDED_JSON, SERVICES_JSON, ServiceSpec};
use holdfast_core::ipc::{LOG_SOCKET, SOCKET};
use holdfast_core::slots::Stage;

use crate::record::RecordStore;
use crate::services::{AGENT, LOG, Program, Services};
use crate::sys::tun;
use crate::system::{Clock, Doom, System};
use crate::vigil::Mode;
use crate::{cmdline, ipc, kmsg, log, mounts, provide, var};
use storage::{enter_root, find_disk, make_var, mode};

/// The agent in the initramfs.
const AGENT_PROGRAM: &str = "/usr/bin/holdfast-agent";
/// Where the agent finds the image's description.
const IMAGE_COPY: &str = "/run/holdfast/image.json";
/// A boot that cannot go on stays this long, so that its reason can be read on the screen.
const DOOMED_PAUSE: Duration = Duration::from_secs(5);
/// Longer where starts may not be counted, for the disk takes no writes: no reboot in a hurry.
const NO_DISK_PAUSE: Duration = Duration::from_secs(120);

/// Brings the system up. An error is one that leaves nothing to run on.
pub fn run() -> Result<System> {
    let clock = Clock::start();
    for entry in &mounts::EARLY {
        mounts::apply(entry)?;
    }
    tell_the_kernel();
    let line = cmdline::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
    let mut notes = line.notes.clone();
    kmsg::notice(format_args!("started, {}", env!("CARGO_PKG_VERSION")));
    keep_firmware(&mut notes);
    let mut dog = drivers::load_first(line.watchdog, &mut notes);
    kmsg::notice(format_args!("modules loaded at {}", clock.now_text()));
    let agent = mounts::keep_program(AGENT_PROGRAM)?;
    // The initramfs goes out of sight with the root's coming; modules are still loaded from it.
    let initramfs = mounts::keep_program("/")?;
    let image = read_image(&mut notes);

    let (disk, mut store, all_loaded) = find_disk(&line, &initramfs, &mut dog, &mut notes);
    let mode = mode(&line, store.as_ref());
    reached(store.as_mut(), Stage::INIT);
    let mut doomed = (store.is_none() && line.boot.is_some() && !line.rescue).then(|| Doom {
        reason: "the disk that this system was started from is not there".into(),
        pause: NO_DISK_PAUSE,
    });
    let doom = |reason: String| Doom {
        reason,
        pause: DOOMED_PAUSE,
    };
    let root_mounted = match enter_root(&line, mode, disk.as_ref()) {
        Ok(entered) => entered,
        Err(error) => {
            doomed.get_or_insert(doom(format!("root: {error:#}")));
            false
        }
    };
    if root_mounted {
        reached(store.as_mut(), Stage::ROOT);
        kmsg::notice(format_args!("verity root mounted at {}", clock.now_text()));
    }
    let on_disk = match &disk {
        Some(disk) if doomed.is_none() => {
            match make_var(disk, mode, root_mounted, &mut dog, &mut notes) {
                Ok(var::Outcome::Disk(_)) => true,
                Ok(var::Outcome::Memory) => false,
                Ok(var::Outcome::FailTrial) => {
                    let why = notes.last().map_or("", String::as_str);
                    doomed = Some(doom(format!("/var: {why}")));
                    false
                }
                Err(error) if matches!(mode, Mode::Trial(_)) => {
                    doomed = Some(doom(format!("/var: {error:#}")));
                    false
                }
                Err(error) => {
                    notes.push(format!("{error:#}"));
                    false
                }
            }
        }
        _ => false,
    };
    furnish(on_disk, &mut notes);
    if let Err(error) = tun::make_persistent(MESH_INTERFACE) {
        notes.push(format!("{MESH_INTERFACE}: {error}"));
    }

    let mut services = Services::default();
    start_log(&mut services, &mut notes);
    services.add(
        service(AGENT, "holdfast-agent"),
        Program::Kept(agent),
        Vec::new(),
    );
    if root_mounted {
        let machine_id = fs::read_to_string("/run/machine-id").unwrap_or_default();
        notes.extend(provide::apply(Path::new(PROVIDED_JSON), machine_id.trim()));
        add_recipe_services(&mut services, &mut notes);
    }
    for note in &notes {
        kmsg::warning(note);
    }
    let server = ipc::Server::bind(SOCKET)?;
    if let Some(doom) = doomed {
        kmsg::error(&doom.reason);
        return Ok(System::doomed(clock, dog, server, store, mode, doom));
    }
    let background = drivers::load_the_rest(root_mounted, initramfs, all_loaded);
    announce(store.as_mut());
    kmsg::notice(format_args!("up at {}", clock.now_text()));
    let background = background
        .map_err(|error| notes.push(format!("modules: {error}")))
        .ok();
    let facts = crate::system::Facts {
        line,
        image,
        disk,
        root_mounted,
        var_on_disk: on_disk,
        notes,
    };
    let system = System::new(clock, dog, server, store, mode, services, facts);
    Ok(system.with_modules_loading(background))
}

/// Where this start ends, should it end here, is known from the record then.
fn reached(store: Option<&mut RecordStore>, stage: Stage) {
    let Some(store) = store else { return };
    if let Err(error) = store.news(|record, id| record.reached(id, stage)) {
        kmsg::error(format_args!("note the stage: {error:#}"));
    }
}

/// Where drivers find the initramfs's firmware also when the root covers it: a network card may ask
/// for its only when it is brought up.
const FIRMWARE: (&str, &str) = ("/usr/lib/firmware", "/run/holdfast/firmware");

/// Keeps the initramfs's firmware in reach (Linux `Documentation/driver-api/firmware/fw_search_path.rst`),
/// and frees what only the kernel itself needed.
fn keep_firmware(notes: &mut Vec<String>) {
    // Microcode, used before init was started.
    let _ = fs::remove_dir_all("/kernel");
    let (from, to) = FIRMWARE;
    if !Path::new(from).exists() {
        return;
    }
    let kept = fs::create_dir_all(to)
        .map_err(anyhow::Error::from)
        .and_then(|()| mounts::bind(Path::new(from), Path::new(to)))
        .and_then(|()| Ok(fs::write("/sys/module/firmware_class/parameters/path", to)?));
    if let Err(error) = kept {
        notes.push(format!("firmware for drivers: {error:#}"));
    }
}

/// Settings that nobody else makes, before they matter.
fn tell_the_kernel() {
    for (path, value) in [
        // By default the kernel drops what user space writes to its log too fast.
        ("/proc/sys/kernel/printk_devkmsg", "on"),
        // The kernel's own chatter stays off a slow serial line (`loglevel=` of the board); from here
        // on notices are shown: few, and what an operator at the screen wants to read.
        ("/proc/sys/kernel/printk", "6 4 1 4"),
        // With the default of 10, an eleventh unread log line blocks its sender.
        ("/proc/sys/net/unix/max_dgram_qlen", "512"),
        // Where a router swallows what is too big and its ICMP too, TCP finds a size that passes.
        ("/proc/sys/net/ipv4/tcp_mtu_probing", "1"),
    ] {
        let _ = fs::write(path, value);
    }
    for controller in ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"] {
        // Each by itself: a kernel that lacks one still has the others.
        let _ = fs::write(
            "/sys/fs/cgroup/cgroup.subtree_control",
            format!("+{controller}"),
        );
    }
    let _ = fs::create_dir_all("/run/holdfast");
    use nix::sys::resource::{Resource, setrlimit};
    let _ = setrlimit(Resource::RLIMIT_NOFILE, 65_536, 1_048_576);
}

fn read_image(notes: &mut Vec<String>) -> Option<ImageInfo> {
    let text =
        fs::read_to_string(IMAGE_JSON).and_then(|text| fs::write(IMAGE_COPY, &text).map(|()| text));
    let parsed = text
        .map_err(anyhow::Error::from)
        .and_then(|t| Ok(serde_json::from_str(&t)?));
    parsed
        .map_err(|error| notes.push(format!("{IMAGE_JSON}: {error}")))
        .ok()
}

/// What services expect around them.
fn furnish(var_on_disk: bool, notes: &mut Vec<String>) {
    if !var_on_disk && !Path::new("/var/lib").exists() {
        let _ = mounts::apply(&mounts::VAR_IN_MEMORY);
    }
    for directory in mounts::VAR_DIRECTORIES {
        let _ = fs::create_dir_all(directory);
    }
    let mut note = |result: Result<()>| {
        if let Err(error) = result {
            notes.push(format!("{error:#}"));
        }
    };
    note(mounts::apply(&mounts::TMP));
    for (from, to) in mounts::BINDS {
        let _ = fs::create_dir_all(to);
        note(mounts::bind(Path::new(from), Path::new(to)));
    }
    if Path::new("/run/machine-id").exists() {
        if !Path::new("/etc/machine-id").exists() {
            let _ = fs::create_dir_all("/etc").and_then(|()| fs::write("/etc/machine-id", ""));
        }
        note(mounts::bind(
            Path::new("/run/machine-id"),
            Path::new("/etc/machine-id"),
        ));
    }
    let _ = fs::write(
        "/run/holdfast/hosts",
        "127.0.0.1 localhost\n::1 localhost\n",
    );
    note(mounts::share_all());
}

fn service(name: &str, program: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        exec: vec![program.to_owned()],
        env: Vec::new(),
        keep_children: false,
        delegate: false,
    }
}

/// Init holds the sockets, so that nothing is lost while the child is started again.
fn start_log(services: &mut Services, notes: &mut Vec<String>) {
    let sockets =
        log::bind_journal().and_then(|journal| Ok(vec![journal, ipc::listen(LOG_SOCKET)?.into()]));
    match sockets {
        Ok(pass) => {
            let mut spec = service(LOG, "holdfast-init");
            spec.exec.push("log".to_owned());
            services.add(spec, Program::Myself, pass);
        }
        Err(error) => notes.push(format!("log: {error:#}")),
    }
}

fn add_recipe_services(services: &mut Services, notes: &mut Vec<String>) {
    let Ok(text) = fs::read_to_string(SERVICES_JSON) else {
        return;
    };
    match serde_json::from_str::<Vec<ServiceSpec>>(&text) {
        Ok(specs) => {
            let refused = specs
                .into_iter()
                .filter_map(|spec| services.start(spec, Duration::ZERO).err());
            notes.extend(refused);
        }
        Err(error) => notes.push(format!("{SERVICES_JSON}: {error}")),
    }
}

/// One line that says what runs, for the console.
fn announce(store: Option<&mut RecordStore>) {
    if let Some(record) = store.map(|s| s.record()) {
        let what = record
            .running()
            .map_or_else(|| "nothing".to_owned(), |t| t.to_string());
        kmsg::notice(format_args!("{what}: {}", record.last_reason()));
    }
}
