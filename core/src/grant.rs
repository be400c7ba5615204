//! Grants, member records, and the check that every member makes of every other (decision 7).

use crate::cluster::{ClusterId, MeshIndex};
use crate::documents::{Operators, Policy};
use crate::keys::{MeshKey, PrivateKey, PublicKey, Signature};
use crate::names::{GrantId, GroupName, NameError, NodeName, Role};
use crate::signed::{OpenError, Signable, Signed};
use serde::{Deserialize, Serialize};

/// What an operator allows the holder of a token's private half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The cluster it is for.
    pub cluster: ClusterId,
    /// Names the grant.
    pub id: GrantId,
    /// The token's public half.
    pub token: PublicKey,
    /// The role that a node joins with.
    pub role: Role,
    /// The groups it gets.
    #[serde(default)]
    pub groups: Vec<GroupName>,
    /// The one name it may take; none: any free one.
    #[serde(default)]
    pub name: Option<NodeName>,
    /// The names of a grant of several uses, each bound to an index. Readers that do not know the
    /// field let such a node take any name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<NameSeries>,
    /// First index it may take.
    pub first: MeshIndex,
    /// Last index it may take.
    pub last: MeshIndex,
    /// How many signing keys may use it.
    pub uses: u32,
    /// Unix seconds after which the lighthouse takes no new signing key.
    pub not_after: u64,
}

/// Names with a number: `shelf-01`, `shelf-02`, ...
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameSeries {
    /// What each begins with; a hyphen follows.
    pub prefix: NodeName,
    /// The number of the grant's first index.
    pub start: u32,
}

impl NameSeries {
    /// The name with `number`; two digits at least, as many as `most` has.
    ///
    /// # Errors
    /// When the prefix is too long for it.
    pub fn name(&self, number: u32, most: u32) -> Result<NodeName, NameError> {
        let width = most.to_string().len().max(2);
        NodeName::new(format!("{}-{number:0width$}", self.prefix))
    }
}

impl Grant {
    /// The one name that the node at `index` may take; none: any free one.
    ///
    /// # Errors
    /// When the grant's prefix is too long for a name.
    pub fn name_at(&self, index: MeshIndex) -> Result<Option<NodeName>, NameError> {
        let Some(series) = &self.names else {
            return Ok(self.name.clone());
        };
        let number = |index: MeshIndex| {
            let place = u32::from(index.get().saturating_sub(self.first.get()));
            series.start.saturating_add(place)
        };
        series.name(number(index), number(self.last)).map(Some)
    }
}

/// What a joining node says of itself, signed by the token's private half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The cluster it is for.
    pub cluster: ClusterId,
    /// The grant it uses.
    pub grant: GrantId,
    /// Its name.
    pub name: NodeName,
    /// Its place in the mesh.
    pub index: MeshIndex,
    /// Its WireGuard key.
    pub mesh_key: MeshKey,
    /// Its own signing key; also the key of its TLS certificates.
    pub signing_key: PublicKey,
    /// Grows when the same node signs anew.
    pub counter: u64,
    /// It is a plain WireGuard client (a phone), whose one peer is the node with this WireGuard
    /// key: the others reach it through that node. Readers that do not know the field take it for
    /// a node that never answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<MeshKey>,
    /// By the signing key over all of the above: the token of a grant of several uses is known to
    /// several nodes, so that its signature does not tell which of them made the record. Who only
    /// hands on another's record is believed by this. Records from before have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Signature>,
}

impl MemberRecord {
    /// What `own` is made over; the one part of no fixed length stands last.
    fn own_message(&self) -> Vec<u8> {
        let via = self.via.map_or([0; 32], |key| key.0);
        let mut bytes = b"holdfast:member-own/1\0".to_vec();
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(&self.signing_key.0);
        bytes.extend_from_slice(&self.mesh_key.0);
        bytes.extend_from_slice(&via);
        bytes.extend_from_slice(&self.index.get().to_be_bytes());
        bytes.extend_from_slice(&self.counter.to_be_bytes());
        // Neither holds a slash.
        bytes.extend_from_slice(format!("{}/{}", self.grant, self.name).as_bytes());
        bytes
    }

    /// Signed by its owner too; `key` is the private half of its signing key.
    #[must_use]
    pub fn owned(mut self, key: &PrivateKey) -> Self {
        self.own = Some(key.sign(&self.own_message()));
        self
    }

    /// Whether its owner signed it.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        let signed = |s| self.signing_key.verify(&self.own_message(), s).is_ok();
        self.own.as_ref().is_some_and(signed)
    }
}

impl Signable for Grant {
    const KIND: &'static str = "grant/1";
}
impl Signable for MemberRecord {
    const KIND: &'static str = "member/1";
}

/// A record with the grant that proves it: all that peers need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Signed by the token.
    pub record: Signed<MemberRecord>,
    /// Signed by an operator.
    pub grant: Signed<Grant>,
}

/// A member whose signatures, ranges and standing were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedMember {
    /// What it says of itself.
    pub record: MemberRecord,
    /// What allows it.
    pub grant: Grant,
}

/// Why a member was refused.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// A signature does not fit, or content does not parse.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The grant's signer is no operator that may admit nodes.
    #[error("grant {id} is signed by {key}, which is no operator allowed to admit nodes")]
    NotAnOperator {
        /// The grant.
        id: GrantId,
        /// Its signer.
        key: PublicKey,
    },
    /// Record and grant name different clusters or the wrong one.
    #[error("the record or its grant is for another cluster")]
    OtherCluster,
    /// The record names another grant or was signed by another token.
    #[error("the record was not signed by the token of grant {0}")]
    OtherToken(GrantId),
    /// Outside of what the grant allows.
    #[error("grant {id} does not allow {what}")]
    NotAllowed {
        /// The grant.
        id: GrantId,
        /// Name or index.
        what: String,
    },
    /// Evicted by the policy.
    #[error("{0} is evicted")]
    Evicted(NodeName),
    /// The grant was revoked before this key used it.
    #[error("grant {0} is revoked")]
    Revoked(GrantId),
}

/// A member whose signatures fit, whoever made them: what never changes with the documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedMember {
    /// What it says of itself.
    pub record: MemberRecord,
    /// What is to allow it.
    pub grant: Grant,
    /// Who signed the record.
    token: PublicKey,
    /// Who signed the grant.
    signer: PublicKey,
}

/// Checks the signatures of `member`: the costly half of [`verify`].
///
/// # Errors
/// [`MemberError::Open`].
pub fn open(member: &Member) -> Result<OpenedMember, MemberError> {
    let (grant, signer) = member.grant.open_self()?;
    let (record, token) = member.record.open_self()?;
    Ok(OpenedMember {
        record,
        grant,
        token,
        signer,
    })
}

impl OpenedMember {
    /// Checks it against what the roots signed: the half of [`verify`] to repeat with newer
    /// documents.
    ///
    /// # Errors
    /// [`MemberError`].
    pub fn stands(
        &self,
        cluster: ClusterId,
        operators: &Operators,
        policy: &Policy,
    ) -> Result<(), MemberError> {
        let (record, grant) = (&self.record, &self.grant);
        let id = || grant.id.clone();
        if grant.cluster != cluster || record.cluster != cluster {
            return Err(MemberError::OtherCluster);
        }
        if !operators.honours(&self.signer, &grant.id) {
            return Err(MemberError::NotAnOperator {
                id: id(),
                key: self.signer,
            });
        }
        if self.token != grant.token || record.grant != grant.id {
            return Err(MemberError::OtherToken(id()));
        }
        if !(grant.first..=grant.last).contains(&record.index)
            || record.index < MeshIndex::FIRST_NODE
            || record.index > cluster.last_index()
        {
            return Err(MemberError::NotAllowed {
                what: format!("mesh index {}", record.index.get()),
                id: id(),
            });
        }
        // A prefix that makes no name allows none.
        let allowed = match grant.name_at(record.index) {
            Ok(name) => name.is_none_or(|n| n == record.name),
            Err(_) => false,
        };
        if !allowed {
            return Err(MemberError::NotAllowed {
                what: format!("the name {}", record.name),
                id: id(),
            });
        }
        if policy.evicted.contains(&record.signing_key) {
            return Err(MemberError::Evicted(record.name.clone()));
        }
        let revoked = |r: &crate::documents::RevokedGrant| {
            r.id == grant.id && !r.except.contains(&record.signing_key)
        };
        if policy.revoked.iter().any(revoked) {
            return Err(MemberError::Revoked(id()));
        }
        Ok(())
    }
}

/// Checks `member` against what the roots signed. It asks no clock: `not_after` and `uses` are
/// for the lighthouse, at the moment of joining.
///
/// # Errors
/// [`MemberError`].
pub fn verify(
    member: &Member,
    cluster: ClusterId,
    operators: &Operators,
    policy: &Policy,
) -> Result<VerifiedMember, MemberError> {
    let opened = open(member)?;
    opened.stands(cluster, operators, policy)?;
    Ok(VerifiedMember {
        record: opened.record,
        grant: opened.grant,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{Operator, RevokedGrant, Right};
    use crate::keys::PrivateKey;

    const CLUSTER: ClusterId = ClusterId([9; 16]);

    fn key(n: u8) -> PrivateKey {
        PrivateKey::from_bytes([n; 32])
    }

    fn operators() -> Operators {
        Operators {
            cluster: CLUSTER,
            generation: 1,
            operators: vec![Operator {
                name: "ada".parse().unwrap(),
                key: key(1).public(),
                rights: vec![Right::All],
            }],
            former: vec![],
        }
    }

    fn policy() -> Policy {
        Policy {
            cluster: CLUSTER,
            generation: 1,
            rules: vec![],
            evicted: vec![],
            revoked: vec![],
        }
    }

    fn grant() -> Grant {
        Grant {
            cluster: CLUSTER,
            id: "g1".parse().unwrap(),
            token: key(2).public(),
            role: Role::Bare,
            groups: vec![],
            name: Some("n1".parse().unwrap()),
            names: None,
            first: MeshIndex::FIRST_NODE,
            last: MeshIndex::FIRST_NODE,
            uses: 1,
            not_after: 0,
        }
    }

    #[test]
    fn a_series_binds_each_name_to_its_index() {
        let index = |n: u16| MeshIndex::try_from(n).unwrap();
        let grant = Grant {
            name: None,
            names: Some(NameSeries {
                prefix: "shelf".parse().unwrap(),
                start: 1,
            }),
            first: index(20),
            last: index(31),
            uses: 12,
            ..grant()
        };
        let name = |g: &Grant, n| g.name_at(index(n)).unwrap().unwrap().to_string();
        assert_eq!(name(&grant, 20), "shelf-01");
        assert_eq!(name(&grant, 31), "shelf-12");
        let wide = Grant {
            last: index(130),
            ..grant.clone()
        };
        assert_eq!(name(&wide, 20), "shelf-001");
        let as_named = |n: u16, name: &str| {
            let record = MemberRecord {
                name: name.parse().unwrap(),
                index: index(n),
                ..record()
            };
            let member = member(&record, 2, &grant, 1);
            verify(&member, CLUSTER, &operators(), &policy())
        };
        as_named(21, "shelf-02").unwrap();
        for (n, other) in [(21, "shelf-03"), (21, "gate"), (20, "shelf-1")] {
            assert!(
                matches!(as_named(n, other), Err(MemberError::NotAllowed { .. })),
                "{other}"
            );
        }
        let long = Grant {
            names: Some(NameSeries {
                prefix: "x".repeat(62).parse().unwrap(),
                start: 1,
            }),
            ..grant.clone()
        };
        assert!(long.name_at(index(20)).is_err());
    }

    #[test]
    fn grants_without_a_series_are_written_as_before() {
        let text = serde_json::to_string(&grant()).unwrap();
        assert!(!text.contains("names"), "{text}");
        let read: Grant = serde_json::from_str(&text).unwrap();
        assert_eq!(read, grant());
    }

    fn record() -> MemberRecord {
        MemberRecord {
            cluster: CLUSTER,
            grant: "g1".parse().unwrap(),
            name: "n1".parse().unwrap(),
            index: MeshIndex::FIRST_NODE,
            mesh_key: MeshKey([4; 32]),
            signing_key: key(3).public(),
            counter: 1,
            via: None,
            own: None,
        }
    }

    #[test]
    fn the_owners_signature_is_over_every_field() {
        let other = |change: fn(&mut MemberRecord)| {
            let mut record = record().owned(&key(3));
            change(&mut record);
            record.is_owned()
        };
        assert!(other(|_| {}));
        let changes: [fn(&mut MemberRecord); 9] = [
            |r| r.cluster.0[0] ^= 1,
            |r| r.grant = "g2".parse().unwrap(),
            |r| r.name = "n2".parse().unwrap(),
            |r| r.index = MeshIndex::LAST,
            |r| r.mesh_key.0[0] ^= 1,
            |r| r.signing_key = key(4).public(),
            |r| r.counter += 1,
            |r| r.via = Some(MeshKey([4; 32])),
            |r| r.own = None,
        ];
        for (n, change) in changes.into_iter().enumerate() {
            assert!(!other(change), "{n}");
        }
        assert!(!record().owned(&key(2)).is_owned());
        // Records from before are written as they were, and read.
        let text = serde_json::to_string(&record()).unwrap();
        assert!(!text.contains("own"), "{text}");
        let text = serde_json::to_string(&record().owned(&key(3))).unwrap();
        assert!(
            serde_json::from_str::<MemberRecord>(&text)
                .unwrap()
                .is_owned()
        );
    }

    fn member(r: &MemberRecord, token: u8, g: &Grant, operator: u8) -> Member {
        Member {
            record: Signed::sign(r, &key(token)).unwrap(),
            grant: Signed::sign(g, &key(operator)).unwrap(),
        }
    }

    #[test]
    fn accepts_what_an_operator_granted() {
        verify(
            &member(&record(), 2, &grant(), 1),
            CLUSTER,
            &operators(),
            &policy(),
        )
        .unwrap();
    }

    #[test]
    fn refuses_what_a_hostile_lighthouse_could_make() {
        let check = |m: Member, p: &Policy| verify(&m, CLUSTER, &operators(), p).unwrap_err();
        assert!(matches!(
            check(member(&record(), 2, &grant(), 8), &policy()),
            MemberError::NotAnOperator { .. }
        ));
        assert!(matches!(
            check(member(&record(), 8, &grant(), 1), &policy()),
            MemberError::OtherToken(_)
        ));
        let other = MemberRecord {
            index: MeshIndex::LAST,
            ..record()
        };
        assert!(matches!(
            check(member(&other, 2, &grant(), 1), &policy()),
            MemberError::NotAllowed { .. }
        ));
        let renamed = MemberRecord {
            name: "n2".parse().unwrap(),
            ..record()
        };
        assert!(matches!(
            check(member(&renamed, 2, &grant(), 1), &policy()),
            MemberError::NotAllowed { .. }
        ));
        let evicted = Policy {
            evicted: vec![key(3).public()],
            ..policy()
        };
        assert!(matches!(
            check(member(&record(), 2, &grant(), 1), &evicted),
            MemberError::Evicted(_)
        ));
    }

    #[test]
    fn a_revoked_grant_keeps_those_who_had_joined() {
        let revoked = |except| Policy {
            revoked: vec![RevokedGrant {
                id: "g1".parse().unwrap(),
                except,
            }],
            ..policy()
        };
        let m = member(&record(), 2, &grant(), 1);
        assert!(matches!(
            verify(&m, CLUSTER, &operators(), &revoked(vec![])),
            Err(MemberError::Revoked(_))
        ));
        verify(&m, CLUSTER, &operators(), &revoked(vec![key(3).public()])).unwrap();
    }
}
