//! A state that a later version wrote: what this one cannot read of it is left out.

use super::StateDoc;
use serde_json::{Map, Value};

/// Where fields are kept that could not be read, for the version that wrote them. Not much: the state
/// must not outgrow its place by them.
pub const UNREAD: &str = "unread";
/// At most so many bytes of them.
const UNREAD_MAX: usize = 64 * 1024;

/// Without these a node is another one, formats what it must not, or takes old documents and an old
/// time for new ones: then better no state at all, which nobody overwrites. A later version never
/// changes the form of the last two.
const VITAL: [&str; 7] = [
    "var_formatted",
    "machine_id",
    "identity",
    "admission",
    "spent_grants",
    "document_floors",
    "clock_floor",
];

/// Names of the fields that a version before could not read, or this one.
#[must_use]
pub fn unread(doc: &StateDoc) -> Vec<&str> {
    let kept = doc.other.get(UNREAD).and_then(Value::as_object);
    kept.into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect()
}

fn reads(name: &str, value: &Value) -> bool {
    let alone = Map::from_iter([(name.to_owned(), value.clone())]);
    serde_json::from_value::<StateDoc>(Value::Object(alone)).is_ok()
}

/// Gives back what was kept aside and can be read now, where nothing has taken its place since.
pub(super) fn give_back(doc: StateDoc) -> StateDoc {
    let Some(Value::Object(kept)) = doc.other.get(UNREAD).cloned() else {
        return doc;
    };
    let map = |doc: &StateDoc| match serde_json::to_value(doc) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (mut fields, empty) = (map(&doc), map(&StateDoc::default()));
    fields.remove(UNREAD);
    let mut left = Map::new();
    for (name, value) in kept {
        // Of what was too much to keep only the name is left.
        if value.is_null() {
            continue;
        }
        if !reads(&name, &value) {
            left.insert(name, value);
        } else if fields.get(&name) == empty.get(&name) {
            fields.insert(name, value);
        }
    }
    if !left.is_empty() {
        fields.insert(UNREAD.into(), Value::Object(left));
    }
    serde_json::from_value(Value::Object(fields)).unwrap_or(doc)
}

/// Reads field by field; none when it is no JSON object, or a vital field cannot be read.
pub(super) fn salvage(payload: &[u8]) -> Option<StateDoc> {
    let mut fields: Map<String, Value> = serde_json::from_slice(payload).ok()?;
    let failed = fields.iter().filter(|(name, value)| !reads(name, value));
    let failed: Vec<String> = failed.map(|(name, _)| name.clone()).collect();
    if failed.iter().any(|name| VITAL.contains(&name.as_str())) {
        return None;
    }
    let mut kept = match fields.remove(UNREAD) {
        Some(Value::Object(kept)) => kept,
        _ => Map::new(),
    };
    for name in failed {
        if let Some(value) = fields.remove(&name) {
            kept.insert(name, value);
        }
    }
    let mut doc: StateDoc = serde_json::from_value(Value::Object(fields)).ok()?;
    let len = serde_json::to_vec(&kept).map_or(usize::MAX, |bytes| bytes.len());
    if len > UNREAD_MAX {
        kept.values_mut().for_each(|value| *value = Value::Null);
    }
    doc.other.insert(UNREAD.into(), Value::Object(kept));
    Some(doc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{StateError, decode, encode};
    use serde_json::json;

    /// A copy with this payload, which no type of ours has to fit.
    fn copy(payload: &Value) -> Vec<u8> {
        let Value::Object(fields) = payload.clone() else {
            panic!("{payload}");
        };
        let mut doc = StateDoc::default();
        let own = serde_json::to_value(&doc).unwrap();
        // What is set over the default's own fields would be there twice: those are patched below.
        doc.other = fields
            .clone()
            .into_iter()
            .filter(|(k, _)| own.get(k).is_none())
            .collect();
        let mut whole = serde_json::to_value(&doc).unwrap();
        for (name, value) in fields {
            whole[name] = value;
        }
        let bytes = serde_json::to_vec(&whole).unwrap();
        let mut copy = encode(&StateDoc::default(), 3).unwrap();
        copy.truncate(crate::state::HEADER_LEN);
        copy[12..16].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        copy[24..56].copy_from_slice(&crate::keys::Digest::of(&bytes).0);
        let crc = crc32fast::hash(&copy[..56]);
        copy[56..60].copy_from_slice(&crc.to_le_bytes());
        copy.extend(bytes);
        copy
    }

    #[test]
    fn a_field_of_a_later_version_costs_that_field_alone() {
        let later = json!({
            "clock_floor": 7, "mesh_port": "any of 51820-51830",
            "history": [{"at": "2031-01-01", "event": {"kind": "new"}}], "colour": "blue",
        });
        let (doc, _) = decode(&copy(&later)).unwrap();
        assert_eq!((doc.clock_floor, doc.mesh_port), (7, None));
        assert_eq!(unread(&doc), ["history", "mesh_port"]);
        // Written back and read again it is still there, and sound.
        let (again, _) = decode(&encode(&doc, 4).unwrap()).unwrap();
        assert_eq!(unread(&again), ["history", "mesh_port"]);
        assert_eq!(again.other[UNREAD]["mesh_port"], "any of 51820-51830");
        assert_eq!(again.other["colour"], "blue");
    }

    #[test]
    fn what_can_be_read_again_is_given_back_unless_something_took_its_place() {
        let kept =
            json!({UNREAD: {"mesh_port": 7, "clock_floor": 9, "history": 3, "members": null}});
        let Value::Object(other) = kept else {
            unreachable!()
        };
        let doc = StateDoc {
            clock_floor: 5,
            other,
            ..StateDoc::default()
        };
        let (doc, _) = decode(&encode(&doc, 4).unwrap()).unwrap();
        assert_eq!((doc.mesh_port, doc.clock_floor), (Some(7), 5));
        assert_eq!(unread(&doc), ["history"]);
    }

    #[test]
    fn documents_of_another_form_leave_how_new_they_were() {
        let later = json!({"documents": {"form": 2}, "document_floors": [7, 8, 9]});
        let (doc, _) = decode(&copy(&later)).unwrap();
        assert_eq!(
            (doc.documents.is_none(), doc.document_floors),
            (true, [7, 8, 9])
        );
        assert_eq!(unread(&doc), ["documents"]);
    }

    #[test]
    fn what_a_node_is_nothing_without_is_never_left_out() {
        for (name, value) in [
            ("identity", json!({"signing": "later"})),
            ("admission", json!({"cluster": 7})),
            ("var_formatted", json!("yes")),
            ("spent_grants", json!({})),
            ("document_floors", json!({"policy": 7})),
            ("clock_floor", json!("2031-01-01")),
        ] {
            let read = decode(&copy(&json!({name: value, "mesh_port": 7})));
            assert!(matches!(read, Err(StateError::Content(_))), "{name}");
        }
    }

    #[test]
    fn a_large_one_is_forgotten_but_its_name() {
        let members = vec![json!({"member": "x".repeat(1000)}); 100];
        let (doc, _) = decode(&copy(&json!({"members": members}))).unwrap();
        assert_eq!(unread(&doc), ["members"]);
        assert!(encode(&doc, 4).unwrap().len() < 2 * 4096 + 4096);
    }
}
