//! The host, the token, and what Proxmox's refusals mean.

use crate::exit::Exit;
use anyhow::{Context as _, Result};
use holdfast_proxmox::{Client, ClientError, Fingerprint, Token};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Holds the token; never on the command line, where every user of the machine can read it.
const TOKEN: &str = "HOLDFAST_PROXMOX_TOKEN";

/// Which host, and as whom.
#[derive(Debug, clap::Args)]
pub struct HostArgs {
    /// The Proxmox host, HOST or HOST:PORT
    #[arg(
        long,
        env = "HOLDFAST_PROXMOX_HOST",
        value_name = "HOST",
        help_heading = "Proxmox"
    )]
    host: String,
    /// SHA-256 fingerprint of its certificate, as `pvenode cert info` shows it; without it the system's
    /// roots decide
    #[arg(
        long,
        env = "HOLDFAST_PROXMOX_FINGERPRINT",
        value_name = "AA:BB:…",
        help_heading = "Proxmox"
    )]
    fingerprint: Option<Fingerprint>,
    /// File with the API token, USER@REALM!ID=SECRET; without it, the environment's
    /// HOLDFAST_PROXMOX_TOKEN
    #[arg(long, value_name = "FILE", help_heading = "Proxmox")]
    token_file: Option<PathBuf>,
}

fn token(file: Option<&PathBuf>) -> Result<Token> {
    let (text, from) = match file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("the API token in {}", file.display()))?;
            (text, file.display().to_string())
        }
        None => match std::env::var(TOKEN) {
            Ok(text) => (text, TOKEN.to_owned()),
            Err(_) => {
                return Err(Exit::Usage.error(format!(
                    "no API token: put USER@REALM!ID=SECRET into {TOKEN} or into a file for --token-file; \
                     on the host `pveum user token add USER@REALM ID` makes one"
                )));
            }
        },
    };
    let text = Zeroizing::new(text);
    text.parse()
        .map_err(|e: holdfast_proxmox::BadToken| Exit::Usage.error(format!("{from}: {e}")))
}

impl HostArgs {
    /// A client; nothing is asked yet.
    pub fn client(&self) -> Result<Client> {
        let token = token(self.token_file.as_ref())?;
        Client::new(&self.host, token, self.fingerprint).map_err(anyhow::Error::from)
    }
}

/// What a failed call means, and what to do.
pub fn explain(client: &Client, error: ClientError) -> anyhow::Error {
    match &error {
        ClientError::Unreachable { host, reason } => Exit::Unreachable.error(format!(
            "{host}: {reason}{}",
            if reason.contains("certificate") {
                "\n  `pvenode cert info` on the host shows the fingerprint of its certificate: give it with --fingerprint"
            } else {
                "\n  is this the host that serves Proxmox's web interface? Its port is 8006; another one goes behind --host"
            }
        )),
        ClientError::Refused { refusal, .. } => match (refusal.status, refusal.missing_privilege())
        {
            (401, _) => Exit::Refused.error(format!(
                "Proxmox does not take the token {}: {}\n  on the host `pveum user token list USER@REALM` shows \
                 whether it is there and has not expired",
                client.token().id(),
                refusal.message
            )),
            (_, Some((path, privilege))) => Exit::Refused.error(format!(
                "the token {0} lacks the privilege {1} on {path}\n  on the host `pveum acl modify {path} --tokens '{0}' \
                 --roles ROLE` gives it a role that has it; a token with privilege separation has no more than its user",
                client.token().id(),
                privilege.replace('|', " or ")
            )),
            (403, _) => Exit::Refused.error(error.to_string()),
            _ => Exit::Failed.error(error.to_string()),
        },
        ClientError::Broken { .. } => Exit::Unreachable.error(error.to_string()),
        _ => Exit::Failed.error(error.to_string()),
    }
}
