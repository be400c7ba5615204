//! Every JSON call of the API, typed.

use crate::error::ClientError;
use crate::transport::{CALL_TIMEOUT, LighthouseClient, Stream};
use holdfast_core::api::{
    GrantStatus, GrantUpload, JoinReply, JoinRequest, MESH_STREAM, MemberList, NodeEntry, Offer,
    OfferRequest, Refill, Refilled, RelayReply, RelayRequest, SPLICE,
};
use holdfast_core::documents::DocumentSet;
use holdfast_core::grant::{Grant, Member};
use holdfast_core::names::{GrantId, NodeName};
use holdfast_core::signed::Signed;
use holdfast_core::status::NodeStatus;
use reqwest::Method;
use serde::de::IgnoredAny;
use std::time::Duration;

const NOTHING: Option<&()> = None;

impl LighthouseClient {
    /// Whether it is there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn health(&self) -> Result<(), ClientError> {
        let _: IgnoredAny = self
            .call(Method::GET, "/v1/health", NOTHING, CALL_TIMEOUT)
            .await?;
        Ok(())
    }

    /// What the roots signed, as the lighthouse holds it (to be verified).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn documents(&self) -> Result<DocumentSet, ClientError> {
        self.call(Method::GET, "/v1/documents", NOTHING, CALL_TIMEOUT)
            .await
    }

    /// Hands over documents. Operators only.
    ///
    /// # Errors
    /// [`ClientError`]; kind `older` when a generation would go back.
    pub async fn put_documents(&self, documents: &DocumentSet) -> Result<(), ClientError> {
        let _: IgnoredAny = self
            .call(Method::PUT, "/v1/documents", Some(documents), CALL_TIMEOUT)
            .await?;
        Ok(())
    }

    /// Hands over a grant. Operators only.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_grant(&self, id: &GrantId, grant: &Signed<Grant>) -> Result<(), ClientError> {
        let body = GrantUpload {
            grant: grant.clone(),
        };
        let path = format!("/v1/grants/{id}");
        let _: IgnoredAny = self
            .call(Method::PUT, &path, Some(&body), CALL_TIMEOUT)
            .await?;
        Ok(())
    }

    /// All grants and their uses. Operators only.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn grants(&self) -> Result<Vec<GrantStatus>, ClientError> {
        self.call(Method::GET, "/v1/grants", NOTHING, CALL_TIMEOUT)
            .await
    }

    /// Asks what a token's holder may become. The client's identity must hold
    /// `request.signing_key`.
    ///
    /// # Errors
    /// [`ClientError`]; kinds `grant-unknown`, `grant-expired`, `grant-revoked`, `grant-used-up`.
    pub async fn offer(&self, request: &OfferRequest) -> Result<Offer, ClientError> {
        self.call(Method::POST, "/v1/offer", Some(request), CALL_TIMEOUT)
            .await
    }

    /// Joins; may be repeated by the same key. The answer holds no members where they are many.
    ///
    /// # Errors
    /// [`ClientError`]; kinds as for [`Self::offer`], and `record-refused`, `taken`, `evicted`.
    pub async fn join(&self, member: Member) -> Result<JoinReply, ClientError> {
        let body = JoinRequest { member };
        self.call(
            Method::POST,
            "/v1/join?members=few",
            Some(&body),
            CALL_TIMEOUT,
        )
        .await
    }

    /// The members, as soon as their revision is not `after` any more, at the latest after
    /// `wait` (whole seconds, at most 60; zero: at once).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn members(&self, after: u64, wait: Duration) -> Result<MemberList, ClientError> {
        let path = format!("/v1/members?after={after}&wait={}", wait.as_secs());
        self.call(Method::GET, &path, NOTHING, wait + CALL_TIMEOUT)
            .await
    }

    /// As [`Self::members`], but what changed since `after`, where the lighthouse still knows that:
    /// [`MemberList::since`] says whether it does.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn news(&self, after: u64, wait: Duration) -> Result<MemberList, ClientError> {
        let path = format!(
            "/v1/members?after={after}&wait={}&delta=true",
            wait.as_secs()
        );
        self.call(Method::GET, &path, NOTHING, wait + CALL_TIMEOUT)
            .await
    }

    /// Asks for a channel to another member. Members only.
    ///
    /// # Errors
    /// [`ClientError`]; kind `not-found` when there is no such member in good standing.
    pub async fn relay(&self, request: &RelayRequest) -> Result<RelayReply, ClientError> {
        self.call(Method::POST, "/v1/relay", Some(request), CALL_TIMEOUT)
            .await
    }

    /// Hands on what the lighthouse lacks of others. Members only.
    ///
    /// # Errors
    /// [`ClientError`]; kind `not-found` from a lighthouse that does not know the call.
    pub async fn refill(&self, refill: &Refill) -> Result<Refilled, ClientError> {
        self.call(Method::POST, "/v1/refill", Some(refill), CALL_TIMEOUT)
            .await
    }

    /// Hands over the node's account of itself.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_status(&self, status: &Signed<NodeStatus>) -> Result<(), ClientError> {
        let _: IgnoredAny = self
            .call(Method::PUT, "/v1/status", Some(status), CALL_TIMEOUT)
            .await?;
        Ok(())
    }

    /// All nodes. Operators only.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn nodes(&self) -> Result<Vec<NodeEntry>, ClientError> {
        self.call(Method::GET, "/v1/nodes", NOTHING, CALL_TIMEOUT)
            .await
    }

    /// Drops an evicted node's record, so that its name and index become free. Operators only.
    ///
    /// # Errors
    /// [`ClientError`]; kind `denied` while the policy does not evict it.
    pub async fn forget(&self, name: &NodeName) -> Result<(), ClientError> {
        let path = format!("/v1/members/{name}/forget");
        let _: IgnoredAny = self
            .call(Method::POST, &path, NOTHING, CALL_TIMEOUT)
            .await?;
        Ok(())
    }

    /// A raw stream to the control port of `name`; TLS to the node's key goes inside. Operators
    /// only.
    ///
    /// # Errors
    /// [`ClientError`]; kinds `not-found`, `unreachable`.
    pub async fn control(&self, name: &NodeName) -> Result<Stream, ClientError> {
        self.upgrade(&format!("/v1/control/{name}"), SPLICE).await
    }

    /// A stream for the node's datagrams, where UDP does not reach the lighthouse. Members only.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn mesh_stream(&self) -> Result<Stream, ClientError> {
        self.upgrade("/v1/mesh", MESH_STREAM).await
    }

    /// The node's end of a stream that [`crate::Standing`] announced.
    ///
    /// # Errors
    /// [`ClientError`]; kind `not-found` when nobody waits for it any more.
    pub async fn splice(&self, id: &str) -> Result<Stream, ClientError> {
        self.upgrade(&format!("/v1/splice/{id}"), SPLICE).await
    }
}
