//! One piece of work on the host, which leaves nothing half made: what was made is removed again when
//! something fails or somebody presses Ctrl-C, and what cannot be removed is named.

use super::connect::explain;
use crate::app::App;
use crate::exit::Exit;
use crate::progress::Steps;
use anyhow::Result;
use holdfast_proxmox::answers::{self, Config};
use holdfast_proxmox::calls::{self, Call};
use holdfast_proxmox::names::{Node, VmId, Volume};
use holdfast_proxmox::{Client, ClientError};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A machine that is being made is locked until Proxmox is done with it.
const LOCKED: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_secs(1);

/// Something on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Made {
    File(Node, Volume),
    /// `sure`: Proxmox said that it makes it. Otherwise only one that has this mark is ours.
    Machine {
        node: Node,
        id: VmId,
        mark: String,
        sure: bool,
    },
}

impl std::fmt::Display for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(node, volume) => {
                write!(f, "{volume} on {node}: `pvesm free {volume}` removes it")
            }
            Self::Machine { node, id, sure, .. } => write!(
                f,
                "{}VM {id} on {node}: `holdfast proxmox destroy {id} --force` removes it",
                if *sure { "" } else { "perhaps " }
            ),
        }
    }
}

/// The work.
pub struct Work<'a> {
    /// The host.
    pub client: &'a Client,
    /// Its progress.
    pub steps: Arc<Steps>,
    made: Vec<Made>,
    interrupt: Signal,
    terminate: Signal,
}

impl<'a> Work<'a> {
    /// Begins; nothing is made yet.
    pub fn begin(client: &'a Client) -> Result<Self> {
        Ok(Self {
            client,
            steps: Arc::new(Steps::new()),
            made: vec![],
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for something that may be broken off.
    pub async fn patiently<T>(
        &mut self,
        what: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T> {
        tokio::select! {
            done = what => done.map_err(|e| explain(self.client, e)),
            _ = self.interrupt.recv() => Err(Exit::Failed.error("interrupted")),
            _ = self.terminate.recv() => Err(Exit::Failed.error("interrupted")),
        }
    }

    /// Runs a call with its task. The call itself is not broken off: whether it had its effect would
    /// not be known.
    pub async fn run(&mut self, step: &str, call: &Call) -> Result<()> {
        self.steps.start(step, None);
        let data = match self.client.call(call).await {
            Ok(data) => data,
            Err(e) => return Err(explain(self.client, e)),
        };
        self.finish(step, &data).await
    }

    /// Makes a machine; `mark` stands in its SMBIOS or description, to know it again.
    pub async fn make_machine(
        &mut self,
        step: &str,
        call: &Call,
        node: &Node,
        id: VmId,
        mark: &str,
    ) -> Result<()> {
        let made = |sure| Made::Machine {
            node: node.clone(),
            id,
            mark: mark.to_owned(),
            sure,
        };
        self.steps.start(step, None);
        match self.client.call(call).await {
            Ok(data) => {
                self.made.push(made(true));
                self.finish(step, &data).await
            }
            Err(e) => {
                if matches!(e, ClientError::Broken { .. } | ClientError::Answer(_)) {
                    self.made.push(made(false));
                }
                Err(explain(self.client, e))
            }
        }
    }

    async fn finish(&mut self, step: &str, data: &serde_json::Value) -> Result<()> {
        if let Some(task) = answers::task(data)? {
            let client = self.client;
            match self.patiently(client.wait(&task)).await {
                Ok(None) => {}
                Ok(Some(words)) => self.steps.line(&format!("note: {step}: {words}")),
                Err(e) => {
                    // One that is over takes no harm; one that goes on would hold what is removed.
                    let _ = client.call(&calls::stop_task(&task)).await;
                    return Err(e);
                }
            }
        }
        self.steps.done(step, "done");
        Ok(())
    }

    /// A file is about to be uploaded.
    pub fn will_make_file(&mut self, node: &Node, volume: &Volume) {
        self.made.push(Made::File(node.clone(), volume.clone()));
    }

    /// A file that stays, whatever comes.
    pub fn keep_file(&mut self, volume: &Volume) {
        self.made
            .retain(|m| !matches!(m, Made::File(_, v) if v == volume));
    }

    /// Everything made so far is whole and stays.
    pub fn keep_all(&mut self) {
        self.made.clear();
    }

    /// The work's result; after a failure what was made is removed first.
    pub async fn end<T>(mut self, app: &App, result: Result<T>) -> Result<T> {
        self.steps.clear();
        let Err(error) = result else { return result };
        if self.made.is_empty() {
            return Err(error);
        }
        app.say("It failed; what was made is removed again (Ctrl-C leaves it).");
        let mut left = vec![];
        let mut given_up = false;
        for made in std::mem::take(&mut self.made).into_iter().rev() {
            if given_up {
                left.push(made.to_string());
                continue;
            }
            let client = self.client;
            let removed = tokio::select! {
                removed = remove(client, &made) => removed,
                _ = self.interrupt.recv() => { given_up = true; Err("interrupted".into()) }
                _ = self.terminate.recv() => { given_up = true; Err("interrupted".into()) }
            };
            if let Err(why) = removed {
                left.push(format!("{made} ({why})"));
            }
        }
        let exit = crate::exit::exit_of(&error);
        let words = crate::exit::words_of(&error);
        Err(exit.error(if left.is_empty() {
            format!("{words}\n  nothing was left behind")
        } else {
            format!("{words}\n  what is left:\n    {}", left.join("\n    "))
        }))
    }
}

/// Whether Proxmox's words mean that there is nothing of the kind.
fn gone(error: &ClientError) -> bool {
    let words = error.to_string();
    words.contains("does not exist") || words.contains("no such")
}

async fn remove(client: &Client, made: &Made) -> Result<(), String> {
    match made {
        Made::File(node, volume) => match client.run(&calls::remove_volume(node, volume)).await {
            Err(e) if !gone(&e) => Err(super::connect::explain(client, e).to_string()),
            _ => Ok(()),
        },
        Made::Machine {
            node,
            id,
            mark,
            sure,
        } => {
            if !sure && !is_ours(client, node, *id, mark).await? {
                return Ok(());
            }
            let began = Instant::now();
            loop {
                match destroy(client, node, *id).await {
                    Ok(()) => return Ok(()),
                    Err(e) if gone(&e) => return Ok(()),
                    Err(e) if began.elapsed() > LOCKED || !e.to_string().contains("lock") => {
                        return Err(super::connect::explain(client, e).to_string());
                    }
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
            }
        }
    }
}

async fn is_ours(client: &Client, node: &Node, id: VmId, mark: &str) -> Result<bool, String> {
    match client.call(&calls::config(node, id)).await {
        Ok(data) => {
            let config = Config::read(&data).map_err(|e| e.to_string())?;
            let marked = ["smbios1", "description"]
                .iter()
                .any(|name| config.get(name).is_some_and(|text| text.contains(mark)));
            match config.get("lock") {
                // Its settings come when Proxmox is done with it.
                Some(lock) if !marked => {
                    Err(format!("locked ({lock}), it cannot be told whose it is"))
                }
                _ => Ok(marked),
            }
        }
        Err(e) if gone(&e) => Ok(false),
        Err(e) => Err(e.to_string()),
    }
}

/// Powers a machine off if it runs, and removes it with its disks.
pub async fn destroy(client: &Client, node: &Node, id: VmId) -> Result<(), ClientError> {
    if answers::running(&client.call(&calls::status(node, id)).await?)? {
        client.run(&calls::stop(node, id)).await?;
    }
    client.run(&calls::destroy(node, id)).await.map(drop)
}
