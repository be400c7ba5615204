//! The wire of QEMU's guest agent protocol (QEMU: `docs/interop/qemu-ga.rst`): JSON objects one after
//! the other, each answer on a line. Bytes in, objects out; nothing here does IO.

use serde_json::{Value, json};

/// Longest object that is taken, in bytes: the commands known here are a hundred.
pub const LONGEST: usize = 16 * 1024;
/// Not part of any JSON text: from the host, "forget what came before"; to the host, in front of
/// the answer to `guest-sync-delimited`.
const SENTINEL: u8 = 0xff;

/// One object, or why it is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An object.
    Object(Value),
    /// No JSON, or no object.
    Bad(String),
    /// Longer than [`LONGEST`]; the rest of the line is passed over.
    TooLong,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    /// Between objects.
    #[default]
    Between,
    /// Inside of an object, outside of its strings.
    Object,
    /// Inside of a string.
    Text,
    /// Behind a string's backslash.
    Escape,
    /// In something that cannot be one: until the line ends.
    Junk,
}

/// Cuts the stream into objects, whichever way it comes in.
#[derive(Debug, Default)]
pub struct Reader {
    at: At,
    depth: usize,
    held: Vec<u8>,
}

impl Reader {
    /// What `bytes` complete.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Input> {
        bytes.iter().filter_map(|&byte| self.one(byte)).collect()
    }

    fn one(&mut self, byte: u8) -> Option<Input> {
        if byte == SENTINEL {
            *self = Self::default();
            return None;
        }
        match self.at {
            At::Between if byte.is_ascii_whitespace() => return None,
            At::Between if byte == b'{' => {
                self.at = At::Object;
                self.depth = 0;
            }
            At::Between => {
                self.at = At::Junk;
                return Some(Input::Bad("a JSON object is expected".into()));
            }
            At::Junk => {
                if byte == b'\n' {
                    *self = Self::default();
                }
                return None;
            }
            At::Object | At::Text | At::Escape => {}
        }
        if self.held.len() == LONGEST {
            self.held = Vec::new();
            self.at = At::Junk;
            return Some(Input::TooLong);
        }
        self.held.push(byte);
        self.at = match (self.at, byte) {
            (At::Text, b'\\') => At::Escape,
            (At::Text, b'"') => At::Object,
            (At::Object, b'"') | (At::Escape, _) => At::Text,
            (at, _) => at,
        };
        if self.at == At::Object {
            match byte {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            if self.depth == 0 {
                let text = std::mem::take(self).held;
                return Some(match serde_json::from_slice(&text) {
                    Ok(value) => Input::Object(value),
                    Err(e) => Input::Bad(e.to_string()),
                });
            }
        }
        None
    }
}

/// What a command returns, or why it does not.
pub type Outcome = Result<Value, Refusal>;

/// An error as the protocol has it (QAPI's error classes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    class: &'static str,
    words: String,
}

impl Refusal {
    /// Anything.
    pub fn generic(words: impl Into<String>) -> Self {
        Self {
            class: "GenericError",
            words: words.into(),
        }
    }

    /// A command that is not there.
    pub fn not_found(words: impl Into<String>) -> Self {
        Self {
            class: "CommandNotFound",
            words: words.into(),
        }
    }
}

/// The answer's bytes. `id` is the request's own, given back.
pub fn encode(outcome: &Outcome, id: Option<&Value>, delimited: bool) -> Vec<u8> {
    let mut object = match outcome {
        Ok(value) => json!({ "return": value }),
        Err(refusal) => json!({ "error": { "class": refusal.class, "desc": refusal.words } }),
    };
    if let Some(id) = id {
        object["id"] = id.clone();
    }
    let mut bytes = Vec::new();
    if delimited {
        bytes.push(SENTINEL);
    }
    bytes.extend(object.to_string().into_bytes());
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Vec<Input> {
        Reader::default().take(bytes)
    }

    #[test]
    fn objects_are_cut_with_and_without_lines() {
        let two = all(b"{\"execute\":\"a\"}{\"x\":\"}\\\"{\"}\n");
        assert_eq!(
            two,
            [
                Input::Object(json!({"execute": "a"})),
                Input::Object(json!({"x": "}\"{"}))
            ]
        );
        assert_eq!(all(b"\n \r\n"), []);
        assert_eq!(all(b"{\"a\":\n[1,\n{}]}").len(), 1);
    }

    #[test]
    fn the_sentinel_forgets_what_came_before() {
        assert_eq!(
            all(b"{\"half\": \"\xff{\"a\":1}"),
            [Input::Object(json!({"a": 1}))]
        );
    }

    #[test]
    fn junk_costs_one_error_a_line() {
        let inputs = all(b"hello {} \xc3\x28\n{\"a\":1}\n{]}\n");
        assert!(matches!(inputs[0], Input::Bad(_)));
        assert_eq!(inputs[1], Input::Object(json!({"a": 1})));
        assert!(matches!(inputs[2], Input::Bad(_)), "{inputs:?}");
    }

    #[test]
    fn an_object_without_end_is_not_held() {
        let mut reader = Reader::default();
        let mut told = 0;
        for _ in 0..100 {
            told += reader.take(&[b'{'; 4096]).len();
            assert!(reader.held.len() <= LONGEST);
        }
        assert_eq!(told, 1);
        assert_eq!(reader.take(b"\n{}"), [Input::Object(json!({}))]);
    }

    #[test]
    fn answers_are_lines_that_proxmox_takes() {
        let sync = encode(&Ok(json!(5)), None, true);
        assert_eq!(sync, b"\xff{\"return\":5}\n");
        let with_id = encode(&Ok(json!({})), Some(&json!("x\n")), false);
        assert_eq!(with_id, b"{\"id\":\"x\\n\",\"return\":{}}\n");
        let error = encode(&Err(Refusal::not_found("no")), None, false);
        assert_eq!(
            error,
            b"{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"no\"}}\n"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same(
            pieces in proptest::collection::vec(proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(&b"{}[]\"\\\n:,1 "[..])], 0..40), 0..20),
        ) {
            let whole: Vec<u8> = pieces.concat();
            let mut reader = Reader::default();
            let cut: Vec<Input> = pieces.iter().flat_map(|p| reader.take(p)).collect();
            prop_assert_eq!(cut, all(&whole));
        }

        #[test]
        fn after_a_sentinel_every_command_is_heard(junk in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = junk;
            bytes.extend(b"\xff{\"execute\":\"guest-ping\"}\n");
            let inputs = all(&bytes);
            prop_assert_eq!(inputs.last(), Some(&Input::Object(json!({"execute": "guest-ping"}))));
        }
    }
}
