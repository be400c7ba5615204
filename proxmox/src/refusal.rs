//! What Proxmox says when it says no.

use serde_json::Value;

/// Its refusal of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Its words.
    pub message: String,
    /// Which parameters it does not like, and why.
    pub errors: Vec<(String, String)>,
}

impl Refusal {
    /// Of an answer's status, reason phrase and body. Older versions have their words in the reason
    /// phrase alone.
    #[must_use]
    pub fn read(status: u16, reason: Option<&str>, body: &[u8]) -> Self {
        let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
        let message = parsed["message"]
            .as_str()
            .or(reason)
            .unwrap_or("no explanation");
        let errors = parsed["errors"].as_object().into_iter().flatten();
        let text = |v: &Value| {
            v.as_str()
                .map_or_else(|| v.to_string(), |s| s.trim().to_owned())
        };
        Self {
            status,
            message: message.trim().chars().take(500).collect(),
            errors: errors.take(20).map(|(k, v)| (k.clone(), text(v))).collect(),
        }
    }

    /// Path and privilege that are missing, where that is what Proxmox says: its words are
    /// `Permission check failed (PATH, PRIVILEGE[|PRIVILEGE…])`.
    #[must_use]
    pub fn missing_privilege(&self) -> Option<(&str, &str)> {
        let rest = self.message.strip_prefix("Permission check failed (")?;
        let (path, privilege) = rest.split_once(')')?.0.split_once(", ")?;
        Some((path, privilege))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        for (name, why) in &self.errors {
            write!(f, "\n  {name}: {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refusals_in_both_forms() {
        let old = Refusal::read(
            403,
            Some("Permission check failed (/vms/100, VM.Allocate)"),
            b"{\"data\":null}",
        );
        assert_eq!(old.missing_privilege(), Some(("/vms/100", "VM.Allocate")));
        let new = Refusal::read(
            400,
            Some("Parameter verification failed."),
            b"{\"data\":null,\"message\":\"Parameter verification failed.\\n\",\"errors\":{\"smbios1\":\"value may only be 512 characters long\"}}",
        );
        assert_eq!(
            new.to_string(),
            "Parameter verification failed.\n  smbios1: value may only be 512 characters long"
        );
        assert_eq!(
            Refusal::read(500, None, b"<html>").message,
            "no explanation"
        );
    }

    proptest! {
        #[test]
        fn any_body_is_a_refusal(body in proptest::collection::vec(any::<u8>(), 0..200), status in 100_u16..600) {
            let _ = Refusal::read(status, None, &body).to_string();
        }
    }
}
