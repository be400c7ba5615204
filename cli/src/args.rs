//! The command line: global options and the list of verbs. Each verb's own options stand with it.

use crate::commands as c;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const AFTER: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong command line, a file of it that is not there or no seed, or no such cluster directory
  3  lighthouse or node unreachable
  4  refused: by the lighthouse, by the node, a signature or passphrase that does not fit, or a
     disk that must not be overwritten
  5  upgrade, rollback, reboot: the node went back by itself, or fell into its rescue system
  6  what --wait waited for did not come in time
  `holdfast kubectl` ends with kubectl's own code.

Environment:
  HOLDFAST_CLUSTER        the cluster's directory, instead of --cluster
  HOLDFAST_PASSPHRASE     the passphrase of its keys, instead of being asked
  HOLDFAST_MIRROR         the Debian mirror that images are built from
  HOLDFAST_SHARE          where boards/ and recipes/ are, if not in the current directory
  HOLDFAST_NODE_BINARIES  where init, agent and loader for nodes are, if not in node/ARCH/ beside
                          this program
  HOLDFAST_PROXMOX_HOST, HOLDFAST_PROXMOX_FINGERPRINT, HOLDFAST_PROXMOX_TOKEN
                          Proxmox's host, its certificate, the API token: `holdfast proxmox`
  HOLDFAST_KUBECTL        the kubectl that `holdfast kubectl` runs
  HOLDFAST_LOG            what to log on standard error: error, warn, info, debug

Examples:
  holdfast cluster new home --lighthouse lighthouse.example.net
  holdfast build --board x86-64 --recipe k3s --output-dir images
  holdfast seed new --role server --name n1 --out n1.seed.toml
  holdfast flash images/holdfast-x86-64-k3s-2.img /dev/sdb --seed n1.seed.toml
  holdfast nodes
  holdfast upgrade n1 images/holdfast-x86-64-k3s-2.bundle --wait";

/// Appliance nodes of one k3s cluster, built, seeded and kept from afar.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = AFTER, max_term_width = 100, subcommand_required = true)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The cluster's directory; without it, the current one if it holds cluster.toml
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_CLUSTER",
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub cluster: Option<PathBuf>,
    /// Tables for people, or JSON for programs
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub output: Output,
    /// Read the passphrase's line from this file descriptor
    #[arg(long, global = true, value_name = "N", help_heading = "Global options")]
    pub passphrase_fd: Option<u32>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a cluster's directory, or look after it
    #[command(
        subcommand,
        after_help = "Examples:\n  holdfast cluster new home --lighthouse lighthouse.example.net\n  holdfast cluster show --cluster home"
    )]
    Cluster(c::cluster::Verb),
    /// Run a lighthouse
    #[command(
        subcommand,
        after_help = "Examples:\n  sudo holdfast lighthouse install\n  holdfast lighthouse run --dir home/lighthouse"
    )]
    Lighthouse(c::lighthouse::Verb),
    /// Pin a recipe's packages by digest
    Lock(c::lock::Args),
    /// List recipes, or check one: what it does, and what in it contradicts itself
    #[command(
        subcommand,
        after_help = "Examples:\n  holdfast recipe list\n  holdfast recipe check ./my/edge.toml --board x86-64"
    )]
    Recipe(c::recipe::Verb),
    /// Build a disk image and an update bundle
    Build(Box<c::build::Args>),
    /// Write an image and a seed to a card, a stick or a disk, or list what is plugged in
    Flash(Box<c::flash::Args>),
    /// Make a seed: the file that turns a flashed image into a node
    #[command(
        subcommand,
        after_help = "Examples:\n  holdfast seed new --role server --name n1 --out n1.seed.toml\n  holdfast seed pack n1.seed.toml --smbios"
    )]
    Seed(c::seed::Verb),
    /// Grants of seeds: make, list, hand over, revoke
    #[command(
        subcommand,
        after_help = "Examples:\n  holdfast token list\n  holdfast token revoke n1"
    )]
    Token(c::token::Verb),
    /// Make this Linux machine a member
    Join(c::join::JoinArgs),
    /// Undo `holdfast join`
    Leave(c::join::LeaveArgs),
    /// Members that are no nodes: phones, laptops
    #[command(
        subcommand,
        after_help = "Example:\n  holdfast client new --wireguard ada-phone --node n1"
    )]
    Client(c::client::Verb),
    /// Put a node or a client out of the cluster for good
    Evict(c::evict::Args),
    /// Which group of nodes reaches which
    #[command(
        subcommand,
        after_help = "Examples:\n  holdfast policy show\n  holdfast policy allow phones web --tcp 80,443"
    )]
    Policy(c::policy::Verb),
    /// Virtual machines on this computer
    #[command(
        subcommand,
        after_help = "Examples:\n  holdfast vm run --image images/holdfast-x86-64-k3s-1.img --seed n1.seed.toml --memory 3072\n  holdfast vm list"
    )]
    Vm(c::vm::Verb),
    /// Machines on Proxmox VE
    #[command(
        subcommand,
        after_help = "Examples:\n  holdfast proxmox create --image i.qcow2 --seed n1.seed.toml --storage local-lvm --start\n  holdfast proxmox destroy n1"
    )]
    Proxmox(c::proxmox::Verb),
    /// List the nodes
    Nodes(c::nodes::Args),
    /// Ask one node for its own account
    Status(c::status::Args),
    /// Show a node's log
    Logs(c::logs::Args),
    /// Show what happened to a node's slots
    History(c::history::Args),
    /// How nodes reach each other
    #[command(subcommand)]
    Mesh(c::mesh::Verb),
    /// Reboot a node
    Reboot(c::reboot::Args),
    /// Bring a bundle to a node: written to the other slot, tried, proven, committed
    Upgrade(c::upgrade::Args),
    /// Try a node's other slot
    Rollback(c::rollback::Args),
    /// Kill and restart a node's agent; its data plane goes on
    RestartAgent(c::restart_agent::Args),
    /// Print the cluster's Kubernetes administrator configuration, or hold a tunnel for it open
    Kubeconfig(c::kubeconfig::Args),
    /// Run kubectl against the cluster, through the lighthouse
    Kubectl(c::kubectl::Args),
    /// Print a shell's completions
    Completions(c::completions::Args),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_an_example() {
        fn look(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let subs: Vec<_> = command
                .get_subcommands()
                .filter(|c| c.get_name() != "help")
                .collect();
            let text = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(text.contains("holdfast "), "{path} has no example");
            for sub in subs {
                look(sub, &path);
            }
        }
        look(&Cli::command(), "");
    }

    #[test]
    fn help_is_wrapped_by_the_terminal_not_by_hand() {
        fn look(command: &clap::Command) {
            let text = command.get_after_help().map(ToString::to_string);
            for block in text.unwrap_or_default().split("\n\n") {
                let lines: Vec<_> = block.lines().collect();
                let prose = lines.iter().filter(|l| !l.starts_with(' ')).count();
                assert!(prose < 2, "{}: {block}", command.get_name());
                for line in lines.iter().filter(|l| l.starts_with(' ')) {
                    assert!(line.len() < 100, "{}: {line}", command.get_name());
                }
            }
            command.get_subcommands().for_each(look);
        }
        look(&Cli::command());
    }

    #[test]
    fn kubectl_takes_everything_behind_it() {
        for line in [
            "holdfast kubectl get nodes -o wide",
            "holdfast kubectl -- get nodes -o wide",
        ] {
            let Verb::Kubectl(args) = parse(line).unwrap().verb else {
                panic!("{line}")
            };
            assert_eq!(args.args, ["get", "nodes", "-o", "wide"], "{line}");
        }
    }

    #[test]
    fn wrong_values_are_refused_where_they_stand() {
        for line in [
            "holdfast seed new --role king --out x",
            "holdfast seed new --role bare --expires soon --out x",
            "holdfast reboot Node.1",
            "holdfast seed new --role bare --name n1 --uses 2 --out x",
            "holdfast seed new --role bare --name n1 --name-prefix n --out x",
            "holdfast seed new --role bare --install-erase --out x",
            "holdfast seed pack x",
            "holdfast nodes --output xml",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
