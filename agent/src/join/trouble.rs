//! Why a node could not join, in words for its console and report.

use holdfast_client::{ClientError, SuccessorError};
use holdfast_core::api::ApiErrorKind;

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// A word for programs.
    pub state: &'static str,
    /// What happened.
    pub message: String,
    /// What a person can do.
    pub advice: &'static str,
    /// How much it tells, where several lighthouses gave different answers.
    pub weight: u8,
}

/// Advice where waiting may be enough.
const WAIT: &str = "The node goes on trying";
/// In its place where nothing goes on by itself.
const AGAIN: &str = "Then run it again";

impl Trouble {
    fn new(state: &'static str, message: String, advice: &'static str, weight: u8) -> Self {
        Self {
            state,
            message,
            advice,
            weight,
        }
    }

    /// Something on this node.
    pub fn local(error: &anyhow::Error) -> Self {
        Self::new("cannot-join", format!("{error:#}"), WAIT, 1)
    }

    /// What the lighthouse sent does not hold.
    pub fn untrusted(what: String) -> Self {
        Self::new(
            "untrusted-lighthouse",
            what,
            "Make a new seed with holdfast seed new; if this stays, the lighthouse's store is damaged or hostile. The node goes on trying",
            3,
        )
    }

    /// Seed and grant do not fit.
    pub fn mismatch(what: String) -> Self {
        Self::new(
            "bad-seed",
            what,
            "Make a new seed with holdfast seed new",
            4,
        )
    }

    /// In the words of the lighthouse's client.
    pub fn client(error: &ClientError) -> Self {
        match error {
            ClientError::Unreachable(_) | ClientError::Broken { .. } | ClientError::NoAddress => {
                Self::new(
                    "unreachable",
                    format!("unreachable lighthouse: {error}"),
                    "Check this machine's network, and that the lighthouse runs and its address in the seed is right. The node goes on trying",
                    0,
                )
            }
            ClientError::WrongKey {
                address, expected, ..
            } => Self::new(
                "wrong-pin",
                format!("{address} has another key than the seed pins ({expected})"),
                "Make a new seed with holdfast seed new if the lighthouse was set up anew; otherwise something stands between. The node goes on trying",
                2,
            ),
            ClientError::Api(e) => Self::refusal(e.kind, &e.message),
            ClientError::Unexpected { .. } => Self::new("cannot-join", error.to_string(), WAIT, 1),
            ClientError::Identity(_) | ClientError::Setup(_) | ClientError::Local { .. } => {
                Self::new("cannot-join", error.to_string(), WAIT, 1)
            }
        }
    }

    /// The lighthouse shows another key than the seed pins, and no root vouches for it.
    pub fn other_key(error: &ClientError, why: &SuccessorError) -> Self {
        let pinned = Self::client(error);
        Self {
            message: format!("{}; {why}", pinned.message),
            ..pinned
        }
    }

    fn refusal(kind: ApiErrorKind, message: &str) -> Self {
        const NEW: &str = "Make a new seed with holdfast seed new";
        let refused =
            |state, what: &str, advice| Self::new(state, format!("{what}: {message}"), advice, 5);
        match kind {
            ApiErrorKind::GrantUnknown => refused(
                "grant-unknown",
                "the lighthouse does not know the seed's grant",
                "Hand the grant over with holdfast token push, or make a new seed with holdfast seed new; the node goes on trying",
            ),
            ApiErrorKind::GrantExpired => {
                refused("grant-expired", "the seed's grant has expired", NEW)
            }
            ApiErrorKind::GrantRevoked => {
                refused("grant-revoked", "the seed's grant is revoked", NEW)
            }
            ApiErrorKind::GrantUsedUp => {
                refused("grant-used-up", "the seed's grant is used up", NEW)
            }
            ApiErrorKind::Taken => {
                refused("taken", "the name or address belongs to another node", NEW)
            }
            ApiErrorKind::Evicted => refused("evicted", "this node is evicted", NEW),
            ApiErrorKind::RecordRefused => {
                refused("refused", "the lighthouse refused the record", NEW)
            }
            ApiErrorKind::Malformed
            | ApiErrorKind::Denied
            | ApiErrorKind::NotFound
            | ApiErrorKind::Older => refused(
                "refused",
                "the lighthouse refused",
                "Check that lighthouse and image are of the same release. The node goes on trying",
            ),
            ApiErrorKind::Busy | ApiErrorKind::Internal | ApiErrorKind::Unreachable => Self::new(
                "cannot-join",
                format!("the lighthouse cannot answer now: {message}"),
                WAIT,
                1,
            ),
        }
    }

    /// All of it, for somebody whose one attempt this was.
    pub fn said_once(&self) -> String {
        let advice = match self.advice.strip_suffix(WAIT) {
            Some("") => "Run it again later".to_owned(),
            Some(first) => format!("{first}{AGAIN}"),
            None => self
                .advice
                .replace("; the node goes on trying", ", and run it again"),
        };
        format!("{}: {}\n  {advice}.", self.state, self.message)
    }

    /// Whether waiting may be enough; otherwise someone has to do something first.
    pub fn may_mend_itself(&self) -> bool {
        self.weight <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::api::ApiError;

    #[test]
    fn one_attempt_ends_with_what_to_do_next() {
        let kinds = [
            ApiErrorKind::GrantUnknown,
            ApiErrorKind::GrantExpired,
            ApiErrorKind::Malformed,
            ApiErrorKind::Busy,
        ];
        let refused = kinds.map(|kind| {
            let message = "g1".into();
            Trouble::client(&ClientError::Api(ApiError {
                kind,
                message,
                held: None,
            }))
        });
        let key = holdfast_core::keys::PrivateKey::from_bytes([1; 32]).public();
        let pin = Trouble::client(&ClientError::WrongKey {
            address: "192.0.2.1:443".into(),
            expected: key,
            mismatch: Box::new(holdfast_tls::PinMismatch::NotEd25519),
        });
        let unreachable = Trouble::client(&ClientError::Unreachable(vec![]));
        for trouble in refused.iter().chain([&pin, &unreachable]) {
            let said = trouble.said_once();
            let (what, next) = said.split_once("\n  ").unwrap();
            assert!(what.starts_with(trouble.state) && what.contains(&trouble.message));
            assert!(next.len() > 10 && next.ends_with('.'), "{said}");
            // Nobody goes on where one attempt was asked for.
            assert!(!next.contains("goes on"), "{said}");
        }
        assert!(pin.said_once().contains("holdfast seed new"));
    }

    #[test]
    fn each_refusal_says_which() {
        let say = |kind| {
            Trouble::client(&ClientError::Api(ApiError {
                kind,
                message: "g1".into(),
                held: None,
            }))
        };
        for (kind, word) in [
            (ApiErrorKind::GrantExpired, "expired"),
            (ApiErrorKind::GrantRevoked, "revoked"),
            (ApiErrorKind::GrantUsedUp, "used up"),
            (ApiErrorKind::GrantUnknown, "not know"),
        ] {
            let trouble = say(kind);
            assert!(trouble.message.contains(word), "{trouble:?}");
            assert!(!trouble.may_mend_itself());
        }
        assert!(say(ApiErrorKind::Busy).may_mend_itself());
        assert!(
            Trouble::client(&ClientError::Unreachable(vec![]))
                .message
                .contains("unreachable")
        );
    }
}
