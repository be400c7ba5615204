//! The running system: one loop that reaps, starts, answers, watches and feeds the watchdog. The
//! watchdog is fed here and in the bounded waits of `boot` only: a loop that hangs ends in a reset.

mod ending;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use holdfast_core::image::ImageInfo;
use holdfast_core::slots::Record;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::AsFd;

use crate::cmdline::Cmdline;
use crate::disk::Disk;
use crate::dog::{self, Dog};
use crate::ipc::Server;
use crate::modules::background::{Background, Rest};
use crate::record::RecordStore;
use crate::services::{AGENT, Event, Services};
use crate::vigil::{Act, Mode, Vigil};
use crate::{kmsg, root};

pub use ending::Ending;

/// The loop turns at least this often.
const TURN: Duration = Duration::from_secs(1);
/// How often the root's state is asked for.
const ROOT_CHECK: Duration = Duration::from_secs(10);
/// Services wait no longer than this for modules.
const HOLD_LIMIT: Duration = Duration::from_secs(120);

/// Time since init started, on a clock that never jumps.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts it.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time passed.
    pub fn now(&self) -> Duration {
        self.0.elapsed()
    }

    /// Time passed, for a log line.
    pub fn now_text(&self) -> String {
        format!("{:.2} s", self.now().as_secs_f32())
    }
}

/// What boot found out and the agent is told.
pub struct Facts {
    /// The command line.
    pub line: Cmdline,
    /// The image's own description.
    pub image: Option<ImageInfo>,
    /// The disk.
    pub disk: Option<Disk>,
    /// The verity root is `/`.
    pub root_mounted: bool,
    /// `/var` is a disk.
    pub var_on_disk: bool,
    /// Things an operator should know.
    pub notes: Vec<String>,
}

/// Why a boot cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doom {
    /// In words.
    pub reason: String,
    /// How long the reason stays on the screen before the reboot.
    pub pause: Duration,
}

/// Everything that init holds while the node is up.
pub struct System {
    pub(crate) clock: Clock,
    dog: Dog,
    server: Option<Server>,
    pub(crate) store: Option<RecordStore>,
    pub(crate) vigil: Vigil,
    pub(crate) services: Services,
    pub(crate) facts: Option<Facts>,
    pub(crate) ending: Option<Ending>,
    /// Modules that are still being loaded, and since when; what services need is among them.
    background: Option<(Background, Duration)>,
    /// Whether anything is still loaded, what nobody waits for included.
    rest: Option<Rest>,
    root_checked: Duration,
    /// Before it ends: time to read the screen.
    pause: Duration,
}

impl System {
    /// A system that is up.
    pub fn new(
        clock: Clock,
        dog: Dog,
        server: Server,
        store: Option<RecordStore>,
        mode: Mode,
        services: Services,
        facts: Facts,
    ) -> Self {
        Self {
            clock,
            dog,
            server: Some(server),
            store,
            vigil: Vigil::new(mode, Duration::from_secs(facts.line.probation)),
            services,
            facts: Some(facts),
            ending: None,
            background: None,
            rest: None,
            root_checked: Duration::ZERO,
            pause: Duration::ZERO,
        }
    }

    /// Modules that go on being loaded: services wait for them, for a while.
    pub fn with_modules_loading(mut self, background: Option<Background>) -> Self {
        self.rest = background.as_ref().map(Background::rest);
        self.background = background.map(|b| (b, self.clock.now()));
        if self.rest.is_none() {
            self.tell_of_watchdogs();
        }
        self
    }

    /// A boot that cannot go on: the trial is given up, or the loader counts one more start.
    pub fn doomed(
        clock: Clock,
        dog: Dog,
        server: Server,
        store: Option<RecordStore>,
        mode: Mode,
        doom: Doom,
    ) -> Self {
        let mut system = Self {
            clock,
            dog,
            server: Some(server),
            store,
            vigil: Vigil::new(mode, Duration::MAX),
            services: Services::default(),
            facts: None,
            ending: None,
            background: None,
            rest: None,
            root_checked: Duration::ZERO,
            pause: Duration::ZERO,
        };
        if matches!(mode, Mode::Trial(_)) {
            system.fail_trial(&doom.reason);
        }
        system.pause = doom.pause;
        system.ending = Some(Ending::reboot(doom.reason));
        system
    }

    /// Runs until the node has to reboot.
    pub fn run(&mut self) -> Result<Ending> {
        let signals = catch_signals().context("catch signals")?;
        let until = self.clock.now() + self.pause;
        while self.clock.now() < until {
            self.dog.feed();
            std::thread::sleep(TURN.min(self.pause));
        }
        while self.ending.is_none() {
            self.turn(&signals)?;
        }
        let ending = self.ending.take();
        let ending = ending.unwrap_or_else(|| Ending::reboot("no reason given"));
        self.stop_services(&signals)?;
        Ok(ending)
    }

    fn turn(&mut self, signals: &SignalFd) -> Result<()> {
        self.dog.feed();
        self.wait(signals)?;
        self.take_signals(signals);
        self.reap();
        self.background_done();
        self.all_loaded();
        if let Some(mut server) = self.server.take() {
            server.serve(|request| self.handle(request));
            self.server = Some(server);
        }
        self.start_due();
        self.check_root();
        let record = self.store.as_ref().map(RecordStore::record);
        if record.is_some_and(Record::is_being_written) {
            self.vigil.writing(self.clock.now());
        }
        if let Some(act) = self.vigil.tick(self.clock.now()) {
            self.act(act);
        }
        Ok(())
    }

    fn wait(&self, signals: &SignalFd) -> Result<()> {
        let due = self
            .services
            .next_due(self.held())
            .map_or(TURN, |at| at.saturating_sub(self.clock.now()));
        let mut set = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if let Some(server) = &self.server {
            set.extend(
                server
                    .descriptors()
                    .map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
            );
        }
        set.extend(
            self.background
                .as_ref()
                .map(|(b, _)| PollFd::new(b.descriptor(), PollFlags::POLLIN)),
        );
        // Rounded up: a millisecond early would turn the loop once more for nothing.
        let millis = u16::try_from(due.min(TURN).as_micros().div_ceil(1000)).unwrap_or(1000);
        match poll(&mut set, PollTimeout::from(millis)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("wait for events"),
        }
    }

    fn take_signals(&mut self, signals: &SignalFd) {
        while let Ok(Some(info)) = signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGINT) => self.end("Ctrl-Alt-Del"),
                Ok(Signal::SIGTERM | Signal::SIGPWR) => self.end("asked to stop by signal"),
                _ => {}
            }
        }
    }

    fn reap(&mut self) {
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) => {
                    let now = self.clock.now();
                    if self.services.reaped(status, now) == Some(Event::Ended(AGENT.to_owned())) {
                        self.vigil.agent_ended(now);
                    }
                }
            }
        }
    }

    /// Whether services still wait for modules.
    fn held(&self) -> bool {
        self.background
            .as_ref()
            .is_some_and(|(_, since)| self.clock.now().saturating_sub(*since) < HOLD_LIMIT)
    }

    /// All modules are there, or one hangs: services may start.
    fn background_done(&mut self) {
        let Some((background, _)) = &self.background else {
            return;
        };
        let failed = match background.finished() {
            Some(failed) => {
                kmsg::notice(format_args!(
                    "all modules loaded at {}",
                    self.clock.now_text()
                ));
                failed
            }
            None if self.held() => return,
            None => {
                let seconds = HOLD_LIMIT.as_secs();
                let note = format!("a kernel module is not loaded after {seconds} s");
                kmsg::error(&note);
                vec![note]
            }
        };
        self.background = None;
        if let Some(facts) = &mut self.facts {
            facts.notes.extend(failed);
        }
    }

    /// Watchdogs come with drivers that nobody waits for, too.
    fn all_loaded(&mut self) {
        let Some(rest) = &self.rest else { return };
        let done = rest.done();
        self.dog.look();
        if done {
            self.rest = None;
            self.tell_of_watchdogs();
        }
    }

    fn tell_of_watchdogs(&mut self) {
        if let Some(missing) = self.dog.missing() {
            kmsg::warning(&missing);
            if let Some(facts) = &mut self.facts {
                facts.notes.push(missing);
            }
        }
        self.watch_the_loaders();
    }

    /// A watchdog that the loader armed and no driver feeds resets the machine within the minute, in
    /// each of its systems: the record tells the loader to leave it alone, and the next start shows
    /// whether that helps. The starts stay counted.
    fn watch_the_loaders(&mut self) {
        let armed = self.facts.as_ref().is_some_and(|f| f.line.armed);
        let Some(store) = &mut self.store else { return };
        let noted = store.record().watchdog_unfed();
        let Some(unfed) = dog::news(armed, self.dog.hardware(), noted) else {
            return;
        };
        match store.change(|record, id| record.note_watchdog(id, unfed)) {
            Ok(_) if unfed => {
                let reason =
                    "no driver feeds the watchdog that the loader armed: starting without it";
                kmsg::warning(reason);
                self.ending.get_or_insert(Ending::reboot(reason));
            }
            Ok(_) => kmsg::notice("the loader may arm the watchdog again"),
            Err(error) => kmsg::error(format_args!("note the watchdog: {error:#}")),
        }
    }

    /// Whether drivers are still loaded.
    pub(crate) fn loading(&self) -> bool {
        self.rest.is_some()
    }

    fn start_due(&mut self) {
        let now = self.clock.now();
        for event in self.services.tick(now, self.held()) {
            if event == Event::Started(AGENT.to_owned()) {
                kmsg::notice(format_args!("agent started at {}", self.clock.now_text()));
                self.vigil.agent_started(now);
            }
        }
    }

    fn check_root(&mut self) {
        let now = self.clock.now();
        let Some(facts) = self.facts.as_mut().filter(|f| f.root_mounted) else {
            return;
        };
        if now.saturating_sub(self.root_checked) < ROOT_CHECK {
            return;
        }
        self.root_checked = now;
        let (note, rots) = match root::is_sound() {
            Ok(true) => return,
            Ok(false) => ("the root holds blocks that do not verify".to_owned(), true),
            Err(error) => (format!("{error:#}"), false),
        };
        let news = !facts.notes.contains(&note);
        if news {
            kmsg::error(&note);
            facts.notes.push(note.clone());
        }
        match self.vigil.trial_left(now) {
            Some(_) => self.act(Act::FailTrial(note)),
            // Programs and libraries are read from there: what runs on would fail piece by piece.
            None if rots && news => self.act(Act::GiveUp(note)),
            None => {}
        }
    }
}

fn catch_signals() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGPWR,
        Signal::SIGHUP,
        Signal::SIGPIPE,
    ] {
        mask.add(signal);
    }
    mask.thread_block()?;
    // Ctrl-Alt-Del becomes SIGINT to PID 1 instead of an immediate reset.
    nix::sys::reboot::set_cad_enabled(false)?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
