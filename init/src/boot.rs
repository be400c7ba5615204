//! From nothing to a running system, step by step.

mod drivers;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use holdfast_core::cluster::MESH_INTERFACE;
use holdfast_core::image::{IMAGE_JSON, ImageInfo, PROVIDED_JSON, SERVICES_JSON, ServiceSpec};
use holdfast_core::ipc::{LOG_SOCKET, SOCKET};
use holdfast_core::layout::Role;
use holdfast_core::slots::{State, Target};
use holdfast_core::state::StateDoc;

use crate::cmdline::{self, Cmdline};
use crate::disk::{self, Disk};
use crate::dog::Dog;
use crate::modules::Which;
use crate::modules::background::Background;
use crate::record::{self, RecordStore};
use crate::services::{AGENT, LOG, Program, Services};
use crate::state::{Loaded, StateStore};
use crate::sys::tun;
use crate::system::{Clock, Doom, System};
use crate::tool::Tools;
use crate::vigil::Mode;
use crate::{grow, ipc, kmsg, log, modules, mounts, provide, root, var};

/// The agent in the initramfs.
const AGENT_PROGRAM: &str = "/usr/bin/holdfast-agent";
/// Where the agent finds the image's description.
const IMAGE_COPY: &str = "/run/holdfast/image.json";
/// How long disks may take to appear; USB bridges are the slow ones.
const DISK_LIMIT: Duration = Duration::from_secs(30);
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

/// Also tells whether every boot module is loaded.
fn find_disk(
    line: &Cmdline,
    initramfs: &OwnedFd,
    dog: &mut Dog,
    notes: &mut Vec<String>,
) -> (Option<Disk>, Option<RecordStore>, bool) {
    let Some(id) = line.boot.as_deref().and_then(record::boot_id) else {
        notes.push("no holdfast.boot on the command line: not started by the loader, running without a disk".into());
        return (None, None, false);
    };
    // Not on the hardware that most machines of the board have: the other modules have it. They are
    // still loading when the root covers the initramfs.
    let root = PathBuf::from(format!("/proc/self/fd/{}", initramfs.as_raw_fd()));
    let mut others = None;
    let found = disk::find(&id, DISK_LIMIT, || {
        dog.feed();
        // Beside the search: one that hangs over another disk does not end it.
        others.get_or_insert_with(|| {
            let root = root.clone();
            Background::start(move || modules::load(&root, modules::BOOT_LIST, Which::Later))
        });
    });
    let failed = others
        .and_then(Result::ok)
        .and_then(|loading| loading.finished());
    let all_loaded = failed.is_some();
    notes.extend(failed.into_iter().flatten());
    match found {
        Some((disk, store)) => {
            kmsg::notice(format_args!("disk {}", disk.node.display()));
            (Some(disk), Some(store), all_loaded)
        }
        None => {
            notes.push(format!(
                "no disk holds this boot's id after {} s",
                DISK_LIMIT.as_secs()
            ));
            (None, None, all_loaded)
        }
    }
}

/// The record decides what this boot is; without one there is nothing to prove or to lose.
fn mode(line: &Cmdline, store: Option<&RecordStore>) -> Mode {
    let Some(record) = store.map(RecordStore::record) else {
        return Mode::Rescue;
    };
    match record.running() {
        Some(Target::Slot(slot)) if !line.rescue => match record.slot(slot).state {
            State::Trial => Mode::Trial(Duration::from_secs(line.deadline)),
            _ => Mode::Good,
        },
        _ => Mode::Rescue,
    }
}

fn enter_root(line: &Cmdline, mode: Mode, disk: Option<&Disk>) -> Result<bool> {
    let (Some(spec), Some(disk)) = (&line.root, disk) else {
        return Ok(false);
    };
    let slot = match line.slot {
        Some(holdfast_core::status::SlotName::A) => holdfast_core::slots::Slot::A,
        Some(holdfast_core::status::SlotName::B) => holdfast_core::slots::Slot::B,
        _ => return Ok(false),
    };
    if mode == Mode::Rescue {
        return Ok(false);
    }
    let role = Role::Root(slot);
    let partition = disk
        .partition(role)
        .ok_or_else(|| anyhow::anyhow!("no partition {}", role.name()))?;
    root::enter(spec, partition)?;
    Ok(true)
}

fn make_var(
    disk: &Disk,
    mode: Mode,
    tools: bool,
    dog: &mut Dog,
    notes: &mut Vec<String>,
) -> Result<var::Outcome> {
    let state = disk
        .partition(Role::State)
        .ok_or_else(|| anyhow::anyhow!("no partition hf-state"))?;
    let (mut store, loaded) = StateStore::open(&state.node)?;
    let fresh = matches!(loaded, Loaded::Fresh);
    let (mut doc, formatted) = match loaded {
        Loaded::Fresh => (Some(StateDoc::default()), Some(false)),
        Loaded::Known(doc) => {
            let formatted = doc.var_formatted;
            (Some(*doc), Some(formatted))
        }
        Loaded::Unreadable(why) => {
            notes.push(format!(
                "hf-state cannot be read ({why}): nothing is formatted"
            ));
            (None, None)
        }
    };
    let trial = matches!(mode, Mode::Trial(_));
    if mode == Mode::Good
        && let Err(error) = grow::last_partition(disk)
    {
        notes.push(format!("partition table: {error:#}"));
    }
    let partition = disk
        .partition(Role::Var)
        .ok_or_else(|| anyhow::anyhow!("no partition hf-var"))?;
    let device = &partition.node;
    let errors = var::read_superblock(device).is_some_and(|s| s.errors);
    let plan = var::plan(var::Known {
        formatted,
        trial,
        tools,
        errors,
    });
    let mut feed = || dog.feed();
    let outcome = var::execute(&plan, device, &mut Tools::new(&mut feed), notes)?;

    if let Some(doc) = &mut doc {
        let mut changed = false;
        if outcome == var::Outcome::Disk(true) {
            doc.var_formatted = true;
            changed = true;
        }
        if doc.machine_id.is_none() {
            doc.machine_id = Some(var::new_machine_id()?);
            changed = true;
        }
        if changed {
            store.save(doc)?;
        }
        if changed && fresh {
            // Both copies: one torn write must not look like a lost state.
            store.save(doc)?;
        }
        if let Some(id) = &doc.machine_id {
            fs::write("/run/machine-id", format!("{id}\n"))?;
        }
    }
    if outcome == var::Outcome::Disk(false) && mode == Mode::Good {
        match var::grow(device) {
            Ok(true) => kmsg::notice("/var grown to the disk's end"),
            Ok(false) => {}
            Err(error) => notes.push(format!("{error:#}")),
        }
    }
    Ok(outcome)
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
