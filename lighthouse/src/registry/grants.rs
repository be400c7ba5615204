//! Grants: handed over by operators, offered to token holders.

use super::{Registry, unix_now};
use crate::admission::{self, GrantRow};
use crate::refusal::Refusal;
use crate::rows;
use holdfast_core::api::{ApiErrorKind, GrantStatus, Offer, OfferRequest};
use holdfast_core::grant::Grant;
use holdfast_core::keys::PublicKey;
use holdfast_core::names::GrantId;
use holdfast_core::signed::Signed;

impl Registry {
    /// Keeps a grant that an operator signed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn put_grant(&self, id: &GrantId, signed: Signed<Grant>) -> Result<(), Refusal> {
        let held = self.held();
        let grant = self.open_grant(&signed)?;
        if !held.operators.honours(&signed.key(), &grant.id) {
            let text = format!(
                "grant {id} is signed by {}, no operator's key",
                signed.key()
            );
            return Err(Refusal::denied(text));
        }
        let malformed = |text: String| Err(Refusal::new(ApiErrorKind::Malformed, text));
        if grant.id != *id {
            return malformed(format!("this is grant {}, not {id}", grant.id));
        }
        if grant.cluster != self.cluster().id {
            return malformed(format!("grant {id} is for cluster {}", grant.cluster));
        }
        admission::sensible(&grant)?;
        rows::update(
            self.store.as_ref(),
            &rows::grant(id),
            |old: Option<GrantRow>| match old {
                None => Ok(GrantRow {
                    grant: signed.clone(),
                    used_by: vec![],
                    offered: vec![],
                }),
                Some(old) if old.grant == signed => Ok(old),
                Some(_) => Err(Refusal::new(
                    ApiErrorKind::Taken,
                    format!("another grant is called {id}; give the new one another id"),
                )),
            },
        )
        .await?;
        tracing::info!(grant = %id, role = %grant.role, uses = grant.uses, "grant taken");
        Ok(())
    }

    /// All grants.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn grants(&self) -> Result<Vec<GrantStatus>, Refusal> {
        let held = self.held();
        let mut all = vec![];
        for (key, found) in self.store.list("grants/").await? {
            let row: GrantRow = rows::parse(&key, &found.value)?;
            let id = key.strip_prefix("grants/").unwrap_or(&key);
            let revoked = held.policy.revoked.iter().any(|r| r.id.as_str() == id);
            all.push(GrantStatus {
                grant: row.grant,
                used_by: row.used_by,
                revoked,
            });
        }
        Ok(all)
    }

    /// What the holder of `caller`'s key may become.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn offer(&self, request: &OfferRequest, caller: PublicKey) -> Result<Offer, Refusal> {
        if request.signing_key != caller {
            return Err(Refusal::denied(
                "the request names another key than the connection's",
            ));
        }
        let _one = self.writing.lock().await;
        let held = self.held();
        let mut chosen = None;
        let key = rows::grant(&request.grant);
        let row = rows::update(self.store.as_ref(), &key, |row: Option<GrantRow>| {
            let row = row.ok_or_else(|| unknown(&request.grant))?;
            let grant = self.open_grant(&row.grant)?;
            admission::may_use(&row, &grant, &caller, &held.policy, unix_now())?;
            if let Some(index) = self.index_of(&caller, &grant) {
                chosen = Some(index);
                return Ok(row);
            }
            let (index, row) =
                admission::offer(row, &grant, &caller, |i| self.index_taken(i, &caller))?;
            chosen = Some(index);
            Ok::<_, Refusal>(row)
        })
        .await?;
        let nothing = || Refusal::new(ApiErrorKind::Internal, "no index was chosen");
        Ok(Offer {
            grant: row.grant,
            index: chosen.ok_or_else(nothing)?,
            documents: held.set.clone(),
            time: unix_now(),
        })
    }

    pub(super) fn open_grant(&self, signed: &Signed<Grant>) -> Result<Grant, Refusal> {
        let (grant, _) = signed
            .open_self()
            .map_err(|e| Refusal::new(ApiErrorKind::Malformed, e.to_string()))?;
        Ok(grant)
    }
}

pub(super) fn unknown(id: &GrantId) -> Refusal {
    Refusal::new(
        ApiErrorKind::GrantUnknown,
        format!(
            "grant {id} never reached this lighthouse: `holdfast token push` on the operator's machine hands over what waits"
        ),
    )
}
