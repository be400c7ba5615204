//! Whether a test that needs root runs here.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Set where tests that need root are asked for (`make test`, `make test-nat`): then they fail rather
/// than be skipped.
pub const ASKED: &str = "HOLDFAST_ROOT_TESTS";

/// What a test needs beside network namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Namespaces,
    /// TUN devices.
    Tun,
    /// `nft`.
    Nft,
}

/// What is missing here, in words.
fn missing(needs: &[Needs]) -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("network namespaces need root");
    }
    needs.iter().find_map(|need| match need {
        Needs::Namespaces => None,
        Needs::Tun => (!Path::new("/dev/net/tun").exists()).then_some("there are no TUN devices"),
        Needs::Nft => Command::new("nft")
            .arg("--version")
            .output()
            .is_err()
            .then_some("nft is not installed (scripts/setup does that)"),
    })
}

/// Whether a test can run here; says so if not.
///
/// # Panics
/// Where it cannot, and tests that need root are asked for.
#[must_use]
pub fn possible(needs: &[Needs]) -> bool {
    let Some(why) = missing(needs) else {
        return true;
    };
    skipped(why);
    false
}

/// Says that a test does not run, and why.
///
/// # Panics
/// Where tests that need root are asked for: none of them passes without having run.
pub fn skipped(why: &str) {
    judge(std::env::var_os(ASKED).is_some(), why);
}

fn judge(asked: bool, why: &str) {
    assert!(!asked, "{why}; {ASKED} is set");
    // Past the test runner, which keeps to itself what a passed test prints.
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "\nSKIPPED, NOT TESTED: {test}: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_never_passes_unrun() {
        judge(false, "no such thing here");
        let judged = std::panic::catch_unwind(|| judge(true, "no such thing here"));
        assert!(judged.is_err());
        let root = nix::unistd::geteuid().is_root();
        assert_eq!(missing(&[Needs::Namespaces]).is_none(), root);
    }
}
