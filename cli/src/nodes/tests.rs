//! Entries made for tests, and what is shown of them.

use super::*;
use holdfast_core::cluster::MeshIndex;
use holdfast_core::documents::{DocumentSet, Lighthouses, Operator, Operators, Right};
use holdfast_core::grant::{Grant, Member, MemberRecord};
use holdfast_core::keys::{MeshKey, PrivateKey};
use holdfast_core::signed::Signed;
use holdfast_core::status::BootStatus;

pub(crate) const ID: ClusterId = ClusterId([3; 16]);

pub(crate) fn key(n: u8) -> PrivateKey {
    PrivateKey::from_bytes([n; 32])
}

pub(crate) fn documents() -> Documents {
    let operators = Operators {
        cluster: ID,
        generation: 1,
        operators: vec![Operator {
            name: "ada".parse().unwrap(),
            key: key(1).public(),
            rights: vec![Right::All],
        }],
        former: vec![],
    };
    let lighthouses = Lighthouses {
        cluster: ID,
        generation: 1,
        lighthouses: vec![],
    };
    let policy = Policy {
        cluster: ID,
        generation: 1,
        rules: vec![],
        evicted: vec![],
        revoked: vec![],
    };
    Documents {
        set: DocumentSet {
            operators: Signed::sign(&operators, &key(9)).unwrap(),
            lighthouses: Signed::sign(&lighthouses, &key(9)).unwrap(),
            policy: Signed::sign(&policy, &key(9)).unwrap(),
            releases: String::new(),
        },
        operators,
        lighthouses,
        policy,
    }
}

/// An entry of `n1`: its status signed by one key (its own is 3), its grant by another (the
/// operator's is 1).
pub(crate) fn entry(status_by: u8, grant_by: u8) -> NodeEntry {
    let grant = Grant {
        cluster: ID,
        id: "g".parse().unwrap(),
        token: key(2).public(),
        role: Role::Bare,
        groups: vec![],
        name: None,
        names: None,
        first: MeshIndex::FIRST_NODE,
        last: MeshIndex::FIRST_NODE,
        uses: 1,
        not_after: 0,
    };
    let record = MemberRecord {
        cluster: ID,
        grant: "g".parse().unwrap(),
        name: "n1".parse().unwrap(),
        index: MeshIndex::FIRST_NODE,
        mesh_key: MeshKey([4; 32]),
        signing_key: key(3).public(),
        counter: 1,
        via: None,
        own: None,
    };
    let status = NodeStatus {
        cluster: ID,
        name: "n1".parse().unwrap(),
        role: Role::Bare,
        index: MeshIndex::FIRST_NODE,
        counter: 1,
        uptime: 5,
        boot: BootStatus {
            boot_id: "00".into(),
            slot: SlotName::A,
            version: "1.0.0".into(),
            generation: 1,
            on_trial: false,
            reason: "factory".into(),
            slots: vec![],
        },
        k3s: K3sState::None,
        k3s_info: None,
        handshake_age: None,
        memory: None,
        documents: None,
        notes: vec![],
    };
    NodeEntry {
        name: "n1".parse().unwrap(),
        member: Member {
            record: Signed::sign(&record, &key(2)).unwrap(),
            grant: Signed::sign(&grant, &key(grant_by)).unwrap(),
        },
        status: Some(Signed::sign(&status, &key(status_by)).unwrap()),
        status_age: Some(2),
        handshake_age: None,
        standing: true,
        endpoint: None,
    }
}

#[test]
fn shows_what_is_signed_and_says_what_is_not() {
    let documents = documents();
    let judge = Judge {
        id: ID,
        plan: AddressPlan::new(ID, false),
        documents: &documents,
    };
    let good = judge.view(&entry(3, 1));
    assert_eq!(
        (good.problem.as_deref(), good.version.as_deref()),
        (None, Some("1.0.0"))
    );
    assert!(good.mesh_address.is_some());

    let forged_status = judge.view(&entry(8, 1));
    assert!(forged_status.problem.is_some() && forged_status.version.is_none());
    assert_eq!(forged_status.role, Some(Role::Bare));

    let forged_member = judge.view(&entry(3, 8));
    assert!(
        forged_member.problem.is_some()
            && forged_member.version.is_none()
            && forged_member.role.is_none()
    );

    let mut renamed = entry(3, 1);
    renamed.name = "other".parse().unwrap();
    assert!(judge.view(&renamed).problem.is_some());
}

#[test]
fn what_a_silent_node_said_is_told_as_old() {
    let mut view = empty("n1".parse().unwrap());
    view.k3s = Some(K3sState::Ready);
    view.seen = Some(OLD - 1);
    assert_eq!(view.k3s_words(), "ready");
    view.seen = Some(300);
    assert_eq!(view.k3s_words(), "ready, 5 min ago");
    view.k3s = Some(K3sState::None);
    assert_eq!(view.k3s_words(), K3sState::None.to_string());
}

#[test]
fn a_node_that_holds_newer_documents_says_so() {
    let documents = documents();
    let judge = Judge {
        id: ID,
        plan: AddressPlan::new(ID, false),
        documents: &documents,
    };
    let with = |held, by: u8| {
        let mut entry = entry(3, 1);
        let mut status = entry.status.take().unwrap().open(|_| true).unwrap();
        status.documents = held;
        entry.status = Some(Signed::sign(&status, &key(by)).unwrap());
        entry
    };
    // Older versions do not say.
    for held in [None, Some([1, 1, 1]), Some([0, 1, 1])] {
        assert!(judge.view(&with(held, 3)).notes.is_empty());
    }
    let notes = judge.view(&with(Some([1, 1, 9]), 3)).notes;
    assert!(notes[0].contains("(policy 9, here 1)"), "{notes:?}");
    let all = [with(Some([1, 1, 9]), 3), with(Some([2, 2, 1]), 3)];
    assert_eq!(judge.ahead_in_policy(&all).len(), 1);
    // What the node did not sign counts for nothing.
    assert!(
        judge
            .ahead_in_policy(&[with(Some([1, 1, 9]), 8)])
            .is_empty()
    );
}

#[test]
fn of_two_that_have_one_name_each_is_found_by_its_key() {
    let documents = documents();
    let judge = Judge {
        id: ID,
        plan: AddressPlan::new(ID, false),
        documents: &documents,
    };
    let one = entry(3, 1);
    let mut two = entry(4, 1);
    let mut record = two.member.record.open(|_| true).unwrap();
    record.signing_key = key(4).public();
    two.member.record = Signed::sign(&record, &key(2)).unwrap();
    let both = [one, two];
    let find = |text: &str| judge.find(&both, &text.parse().unwrap());
    for (entry, n) in both.iter().zip([3, 4]) {
        let key = key(n).public().to_string();
        assert_eq!(find(&key).unwrap(), entry);
        let said = find("n1").unwrap_err().to_string();
        assert!(
            said.contains(&key) && said.starts_with("2 members"),
            "{said}"
        );
    }
    assert!(find(&key(5).public().to_string()).is_err());
    let said = find("n2").unwrap_err().to_string();
    assert!(said.contains("no node is called n2"), "{said}");
    assert_eq!(
        judge.find(&both[..1], &"n1".parse().unwrap()).unwrap(),
        &both[0]
    );
}
