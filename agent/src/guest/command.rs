//! The commands of QEMU's guest agent that a node knows (QEMU: `qga/qapi-schema.json`). There is no
//! other: in particular none that runs programs or touches files, users, keys.

use super::wire::{Input, Outcome, Refusal};
use serde_json::{Value, json};

/// How a guest is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Power off. Also what `halt` gets: a halted machine would be reset by its watchdog.
    PowerOff,
    /// Start anew.
    Reboot,
}

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Gives the number back; delimited: behind a sentinel byte.
    Sync {
        /// The number.
        id: i64,
        /// Whether the sentinel is wanted.
        delimited: bool,
    },
    /// Nothing.
    Ping,
    /// Version and commands.
    Info,
    /// The system's name and versions.
    OsInfo,
    /// The node's name.
    HostName,
    /// Interfaces and addresses.
    Interfaces,
    /// The file systems that hold data.
    FileSystems,
    /// Nanoseconds since 1970.
    Time,
    /// Stop; nothing is answered.
    Shutdown(Shutdown),
    /// Hold all writes to `/var`.
    Freeze,
    /// Let them go on.
    Thaw,
    /// Whether they are held.
    FreezeStatus,
}

/// Name, and whether success is answered.
const KNOWN: [(&str, bool); 13] = [
    ("guest-fsfreeze-freeze", true),
    ("guest-fsfreeze-status", true),
    ("guest-fsfreeze-thaw", true),
    ("guest-get-fsinfo", true),
    ("guest-get-host-name", true),
    ("guest-get-osinfo", true),
    ("guest-get-time", true),
    ("guest-info", true),
    ("guest-network-get-interfaces", true),
    ("guest-ping", true),
    ("guest-shutdown", false),
    ("guest-sync", true),
    ("guest-sync-delimited", true),
];

/// A command with what its answer carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What is asked; or why it is not done.
    pub command: Result<Command, Refusal>,
    /// Of the request.
    pub id: Option<Value>,
}

impl Call {
    /// Whether the answer follows a sentinel.
    pub fn delimited(&self) -> bool {
        matches!(
            self.command,
            Ok(Command::Sync {
                delimited: true,
                ..
            })
        )
    }
}

/// What an input asks for.
pub fn parse(input: Input) -> Call {
    let object = match input {
        Input::Object(object) => object,
        Input::Bad(why) => return refused(format!("not understood: {why}")),
        Input::TooLong => {
            return refused(format!(
                "longer than the {} bytes taken here",
                super::wire::LONGEST
            ));
        }
    };
    Call {
        command: command(&object),
        id: object.get("id").cloned(),
    }
}

fn refused(words: String) -> Call {
    Call {
        command: Err(Refusal::generic(words)),
        id: None,
    }
}

fn command(object: &Value) -> Result<Command, Refusal> {
    let Some(name) = object.get("execute").and_then(Value::as_str) else {
        return Err(Refusal::generic(
            "\"execute\" with a command's name is missing",
        ));
    };
    let argument = |field: &str| object.get("arguments").and_then(|a| a.get(field));
    let sync = |delimited| {
        let id = argument("id")
            .and_then(Value::as_i64)
            .ok_or_else(|| Refusal::generic("the argument \"id\" has to be a whole number"))?;
        Ok(Command::Sync { id, delimited })
    };
    Ok(match name {
        "guest-sync" => return sync(false),
        "guest-sync-delimited" => return sync(true),
        "guest-ping" => Command::Ping,
        "guest-info" => Command::Info,
        "guest-get-osinfo" => Command::OsInfo,
        "guest-get-host-name" => Command::HostName,
        "guest-network-get-interfaces" => Command::Interfaces,
        "guest-get-fsinfo" => Command::FileSystems,
        "guest-get-time" => Command::Time,
        "guest-fsfreeze-freeze" => Command::Freeze,
        "guest-fsfreeze-thaw" => Command::Thaw,
        "guest-fsfreeze-status" => Command::FreezeStatus,
        "guest-shutdown" => match argument("mode").map(Value::as_str) {
            None | Some(Some("powerdown" | "halt")) => Command::Shutdown(Shutdown::PowerOff),
            Some(Some("reboot")) => Command::Shutdown(Shutdown::Reboot),
            Some(_) => {
                return Err(Refusal::generic(
                    "the argument \"mode\" is none of powerdown, halt, reboot",
                ));
            }
        },
        other => {
            // A foreign name is told back, but not at any length.
            let shown: String = other.chars().take(60).collect();
            return Err(Refusal::not_found(format!(
                "The command {shown} has not been found"
            )));
        }
    })
}

/// The answer to `guest-info`.
pub fn info(version: &str) -> Outcome {
    let commands: Vec<Value> = KNOWN
        .iter()
        .map(
            |(name, answers)| json!({ "name": name, "enabled": true, "success-response": answers }),
        )
        .collect();
    Ok(json!({ "version": version, "supported_commands": commands }))
}

#[cfg(test)]
mod tests {
    use super::super::wire::Reader;
    use super::*;
    use proptest::prelude::*;

    fn call(text: &str) -> Call {
        let mut inputs = Reader::default().take(text.as_bytes());
        assert_eq!(inputs.len(), 1, "{text}");
        parse(inputs.remove(0))
    }

    fn class(text: &str) -> String {
        let refusal = call(text).command.unwrap_err();
        format!("{refusal:?}")
    }

    #[test]
    fn every_known_command_is_understood() {
        for (name, _) in KNOWN {
            let text = format!("{{\"execute\":\"{name}\",\"arguments\":{{\"id\":7}}}}");
            assert!(call(&text).command.is_ok(), "{name}");
        }
        let listed = info("1").unwrap()["supported_commands"]
            .as_array()
            .unwrap()
            .len();
        assert_eq!(listed, KNOWN.len());
    }

    #[test]
    fn nothing_runs_programs_or_touches_files() {
        for name in [
            "guest-exec",
            "guest-exec-status",
            "guest-file-open",
            "guest-file-write",
            "guest-set-user-password",
            "guest-ssh-add-authorized-keys",
            "guest-set-time",
            "guest-suspend-ram",
            "",
        ] {
            let text = format!("{{\"execute\":\"{name}\"}}");
            assert!(class(&text).contains("CommandNotFound"), "{name}");
        }
    }

    #[test]
    fn modes_and_ids() {
        let shutdown = |mode: &str| {
            call(&format!(
                "{{\"execute\":\"guest-shutdown\",\"arguments\":{{\"mode\":{mode}}}}}"
            ))
            .command
        };
        assert_eq!(
            shutdown("\"reboot\""),
            Ok(Command::Shutdown(Shutdown::Reboot))
        );
        assert_eq!(
            shutdown("\"halt\""),
            Ok(Command::Shutdown(Shutdown::PowerOff))
        );
        assert!(shutdown("\"sleep\"").is_err() && shutdown("3").is_err());
        assert!(class("{\"execute\":\"guest-sync\"}").contains("GenericError"));
        assert!(class("{\"execute\":7}").contains("GenericError"));
        assert!(
            call("{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":1}}").delimited()
        );
        assert_eq!(
            call("{\"execute\":\"guest-ping\",\"id\":[1]}").id,
            Some(json!([1]))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_or_waited_for(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for input in Reader::default().take(&bytes) {
                let _ = parse(input);
            }
        }

        #[test]
        fn any_object_is_answered(name in ".{0,80}", arguments in ".{0,20}") {
            let object = json!({"execute": name, "arguments": {"id": arguments, "mode": arguments}});
            let call = parse(Input::Object(object));
            prop_assert!(call.command.is_err() || KNOWN.iter().any(|(n, _)| *n == name));
        }
    }
}
