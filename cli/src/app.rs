//! From the parsed command line to the verb.

use crate::args::{Cli, Global, Output, Verb};
use crate::cluster_dir::{ClusterDir, KeyFile};
use crate::commands as c;
use crate::secrets::Passphrase;
use crate::words::plain_lines;
use anyhow::{Context as _, Result};
use holdfast_core::keys::PrivateKey;
use serde::Serialize;
use std::future::Future;

/// What every verb gets.
pub struct App {
    global: Global,
    /// The passphrase, asked for at most once.
    pub passphrase: Passphrase,
}

impl App {
    /// The cluster's directory.
    pub fn cluster(&self) -> Result<ClusterDir> {
        ClusterDir::find(self.global.cluster.as_deref())
    }

    /// One of its keys, decrypted.
    pub fn key(&self, cluster: &ClusterDir, which: KeyFile) -> Result<PrivateKey> {
        self.passphrase.open(&cluster.key(which))
    }

    /// Whether JSON is wanted.
    pub fn json(&self) -> bool {
        self.global.output == Output::Json
    }

    /// Prints `value` as JSON, or what `text` makes for people.
    pub fn print<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<()> {
        let text = if self.json() {
            serde_json::to_string_pretty(value).context("writing JSON")?
        } else {
            plain_lines(&text())
        };
        print_line(text.trim_end()).map(|_| ())
    }

    /// Says something to people, on standard error.
    pub fn say(&self, text: &str) {
        say(text);
    }
}

/// Says something to people, on standard error; some of it may be a lighthouse's own words.
pub fn say(text: &str) {
    eprintln!("{}", plain_lines(text));
}

/// Writes a line; false when nobody reads any more, which is no error.
pub fn print_line(text: &str) -> Result<bool> {
    print_to(&mut std::io::stdout(), text)
}

fn print_to(out: &mut impl std::io::Write, text: &str) -> Result<bool> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(e).context("writing to standard output"),
    }
}

fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(future)
}

/// Runs the verb; the exit code is its own.
pub fn run(cli: Cli) -> Result<u8> {
    let app = App {
        passphrase: Passphrase::new(cli.global.passphrase_fd),
        global: cli.global,
    };
    let done = |()| 0;
    match cli.verb {
        Verb::Cluster(v) => block_on(c::cluster::run(&app, v)).map(done),
        Verb::Lighthouse(v) => block_on(c::lighthouse::run(&app, v)).map(done),
        Verb::Lock(a) => c::lock::run(&app, a).map(done),
        Verb::Recipe(v) => c::recipe::run(&app, v).map(done),
        Verb::Build(a) => c::build::run(&app, *a).map(done),
        Verb::Flash(a) => c::flash::run(&app, *a).map(done),
        Verb::Seed(v) => block_on(c::seed::run(&app, v)).map(done),
        Verb::Token(v) => block_on(c::token::run(&app, v)).map(done),
        Verb::Join(a) => block_on(c::join::join(&app, a)).map(done),
        Verb::Leave(a) => block_on(c::join::leave(&app, a)).map(done),
        Verb::Client(v) => block_on(c::client::run(&app, v)).map(done),
        Verb::Evict(a) => block_on(c::evict::run(&app, a)).map(done),
        Verb::Policy(v) => block_on(c::policy::run(&app, v)).map(done),
        Verb::Vm(v) => c::vm::run(&app, v).map(done),
        Verb::Proxmox(v) => block_on(c::proxmox::run(&app, v)).map(done),
        Verb::Nodes(a) => block_on(c::nodes::run(&app, a)).map(done),
        Verb::Status(a) => block_on(c::status::run(&app, a)).map(done),
        Verb::Logs(a) => block_on(c::logs::run(&app, a)).map(done),
        Verb::Mesh(v) => block_on(c::mesh::run(&app, v)).map(done),
        Verb::History(a) => block_on(c::history::run(&app, a)).map(done),
        Verb::Reboot(a) => block_on(c::reboot::run(&app, a)).map(done),
        Verb::Upgrade(a) => block_on(c::upgrade::run(&app, a)).map(done),
        Verb::Rollback(a) => block_on(c::rollback::run(&app, a)).map(done),
        Verb::RestartAgent(a) => block_on(c::restart_agent::run(&app, a)).map(done),
        Verb::Kubeconfig(a) => block_on(c::kubeconfig::run(&app, a)).map(done),
        Verb::Kubectl(a) => block_on(c::kubectl::run(&app, a)),
        Verb::Completions(a) => c::completions::run(&a).map(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_told() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        assert!(print_to(&mut writer, "x").unwrap());
        drop(reader);
        assert!(!print_to(&mut writer, "x").unwrap());
    }
}
