//! What the history says of each boot: that it was, and how a trial before it ended.

use crate::node::{Node, remember, slot_event};
use holdfast_core::status::{BootStatus, HistoryEntry, SlotName};

/// The trial that the history began and did not end: its slot and version.
fn open_trial(history: &[HistoryEntry]) -> Option<(SlotName, Option<String>)> {
    let last = history.iter().rev().find(|e| {
        matches!(
            e.event.as_str(),
            "upgrade" | "rollback" | "commit" | "went-back"
        )
    })?;
    matches!(last.event.as_str(), "upgrade" | "rollback").then_some(())?;
    Some((last.slot?, last.version.clone()))
}

/// The lines that a new boot adds.
pub fn entries(history: &[HistoryEntry], boot: &BootStatus) -> Vec<HistoryEntry> {
    let mut out = vec![slot_event(
        "boot",
        boot.slot,
        Some(boot.version.clone()),
        boot.reason.clone(),
    )];
    if boot.on_trial {
        return out;
    }
    if let Some((slot, version)) = open_trial(history) {
        let status = boot.slots.iter().find(|s| s.slot == slot);
        if slot == boot.slot {
            // Committed, and then the power failed before the history said so.
            out.push(slot_event("commit", slot, version, "proven"));
        } else if let Some(status) = status.filter(|s| s.state == "bad") {
            out.push(slot_event(
                "went-back",
                slot,
                version,
                status.reason.clone(),
            ));
        }
    }
    out
}

/// Adds them, once a boot.
pub async fn begin(node: &Node) {
    let boot = &node.boot.boot;
    let doc = node.store.get();
    if doc.last_boot.as_deref() == Some(&boot.boot_id) {
        return;
    }
    let fresh = entries(&doc.history, boot);
    for entry in &fresh {
        tracing::info!(event = entry.event, slot = %boot.slot, detail = entry.detail, "history");
    }
    let stored = node.store.update(|d| {
        d.last_boot = Some(boot.boot_id.clone());
        for entry in fresh {
            remember(&mut d.history, entry);
        }
    });
    if let Err(e) = stored.await {
        node.notes
            .set("history", format!("the history cannot be stored: {e:#}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::status::SlotStatus;

    fn boot(slot: SlotName, other: SlotName, state: &str, on_trial: bool) -> BootStatus {
        BootStatus {
            boot_id: "x".into(),
            slot,
            version: "1".into(),
            generation: 1,
            on_trial,
            reason: "preferred slot".into(),
            slots: vec![SlotStatus {
                slot: other,
                state: state.into(),
                generation: 2,
                tries_left: 0,
                reason: "no mesh".into(),
                probation: false,
            }],
        }
    }

    fn names(history: &[HistoryEntry], b: &BootStatus) -> Vec<String> {
        entries(history, b).into_iter().map(|e| e.event).collect()
    }

    #[test]
    fn a_trial_that_ended_badly_is_told_once() {
        let upgrade = slot_event("upgrade", SlotName::B, Some("2".into()), "");
        let back = boot(SlotName::A, SlotName::B, "bad", false);
        let all = entries(std::slice::from_ref(&upgrade), &back);
        assert_eq!(all[1].event, "went-back");
        assert_eq!(
            (all[1].version.as_deref(), all[1].detail.as_str()),
            (Some("2"), "no mesh")
        );
        let history = [vec![upgrade.clone()], all].concat();
        assert_eq!(names(&history, &back), ["boot"]);
        // Still to come.
        let one = std::slice::from_ref(&upgrade);
        assert_eq!(
            names(one, &boot(SlotName::A, SlotName::B, "trial", false)),
            ["boot"]
        );
        assert_eq!(
            names(one, &boot(SlotName::B, SlotName::A, "good", true)),
            ["boot"]
        );
        // Committed without a line.
        assert_eq!(
            names(one, &boot(SlotName::B, SlotName::A, "good", false)),
            ["boot", "commit"]
        );
    }
}
