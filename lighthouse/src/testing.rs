//! A small cluster with known keys, for tests.

use base64::Engine as _;
use holdfast_core::api::LighthouseIdentity;
use holdfast_core::cluster::{ClusterId, MeshIndex};
use holdfast_core::documents::*;
use holdfast_core::grant::{Grant, Member, MemberRecord};
use holdfast_core::keys::{MeshKey, PrivateKey};
use holdfast_core::names::Role;
use holdfast_core::releases::{ReleaseList, add_signature};
use holdfast_core::signed::Signed;
use holdfast_lighthouse::ClusterFile;

/// A wide one, with room for many nodes.
pub const CLUSTER: ClusterId = ClusterId(*b"hold-fast-hf/18\0");
/// Long before any grant here ends.
pub const NOW: u64 = 1_700_000_000;

pub fn key(n: u8) -> PrivateKey {
    PrivateKey::from_bytes([n; 32])
}

pub const ROOT: u8 = 200;
pub const OPERATOR: u8 = 201;
/// May look, and nothing more.
pub const LOOKER: u8 = 202;

pub fn index(n: u16) -> MeshIndex {
    MeshIndex::try_from(n).unwrap()
}

pub fn operators(generation: u64) -> Operators {
    let operator = |name: &str, n, right| Operator {
        name: name.parse().unwrap(),
        key: key(n).public(),
        rights: vec![right],
    };
    Operators {
        cluster: CLUSTER,
        generation,
        operators: vec![
            operator("ada", OPERATOR, Right::All),
            operator("eve", LOOKER, Right::Look),
        ],
        former: vec![],
    }
}

pub fn policy(generation: u64) -> Policy {
    Policy {
        cluster: CLUSTER,
        generation,
        rules: vec![],
        evicted: vec![],
        revoked: vec![],
    }
}

pub fn lighthouses(
    generation: u64,
    identity: &LighthouseIdentity,
    https: u16,
    udp: u16,
) -> Lighthouses {
    Lighthouses {
        cluster: CLUSTER,
        generation,
        lighthouses: vec![Lighthouse {
            name: "one".into(),
            https: vec![format!("127.0.0.1:{https}")],
            udp: vec![format!("127.0.0.1:{udp}")],
            key: identity.key,
            mesh_key: identity.mesh_key,
            index: MeshIndex::LIGHTHOUSE,
        }],
    }
}

pub fn releases(generation: u64) -> String {
    let root = key(ROOT);
    let list = ReleaseList::new(CLUSTER.0, generation, &[key(203).public().0]).unwrap();
    let mut block = list.encode();
    add_signature(&mut block, &root.public().0, |bytes| root.sign(bytes).0).unwrap();
    base64::engine::general_purpose::STANDARD.encode(block)
}

pub fn cluster() -> ClusterFile {
    ClusterFile::new(
        "demo".parse().unwrap(),
        CLUSTER,
        false,
        Roots(vec![key(ROOT).public()]),
    )
}

pub fn identity() -> LighthouseIdentity {
    LighthouseIdentity {
        key: key(204).public(),
        mesh_key: MeshKey([204; 32]),
    }
}

pub fn set(policy: &Policy, identity: &LighthouseIdentity) -> DocumentSet {
    let root = key(ROOT);
    DocumentSet {
        operators: Signed::sign(&operators(1), &root).unwrap(),
        lighthouses: Signed::sign(&lighthouses(1, identity, 8443, 51820), &root).unwrap(),
        policy: Signed::sign(policy, &root).unwrap(),
        releases: releases(1),
    }
}

/// A grant for `uses` nodes from index 16 on; its token is `key(token)`.
pub fn grant(id: &str, token: u8, uses: u32) -> Grant {
    Grant {
        cluster: CLUSTER,
        id: id.parse().unwrap(),
        token: key(token).public(),
        role: Role::Bare,
        groups: vec![],
        name: None,
        names: None,
        first: index(16),
        last: index(18),
        uses,
        not_after: NOW + 3600,
    }
}

pub fn granted(grant: &Grant) -> Signed<Grant> {
    Signed::sign(grant, &key(OPERATOR)).unwrap()
}

/// Node `n` with the grant.
pub fn record(n: u8, name: &str, at: u16, grant: &Grant) -> MemberRecord {
    MemberRecord {
        cluster: CLUSTER,
        grant: grant.id.clone(),
        name: name.parse().unwrap(),
        index: index(at),
        mesh_key: MeshKey([n; 32]),
        signing_key: key(n).public(),
        counter: 1,
        via: None,
        own: None,
    }
}

pub fn member(record: &MemberRecord, grant: &Grant, token: u8) -> Member {
    Member {
        record: Signed::sign(record, &key(token)).unwrap(),
        grant: granted(grant),
    }
}
