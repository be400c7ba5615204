//! The lighthouse of a seed, or the one that took its place while the seed lay in a drawer.

use super::trouble::Trouble;
use crate::console::say;
use crate::documents::Trusted;
use holdfast_client::{ClientError, LighthouseClient, Trust, succeed};
use holdfast_core::api::{Offer, OfferRequest};
use holdfast_core::seed::{Seed, SeedLighthouse};
use holdfast_core::state::StateDoc;
use holdfast_tls::Identity;

/// What is known before the join: of the seed's own cluster the documents that are held, else only
/// its roots, so that every *lighthouses* document that they signed is news.
fn trust(seed: &Seed, doc: &StateDoc) -> Trust {
    let roots = seed.roots();
    let held = doc.documents.as_ref().filter(|_| {
        let of = doc.admission.as_ref().map(|a| a.cluster_id);
        of == Some(seed.cluster_id)
    });
    let held = held.and_then(|set| Trusted::open(set, &roots, seed.cluster_id).ok());
    Trust {
        roots,
        cluster: seed.cluster_id,
        generation: held.map_or(0, |t| t.lighthouses.generation),
    }
}

/// The lighthouse's offer, and a client for what follows. One that shows another key than the seed
/// pins is taken when a root named it.
///
/// # Errors
/// What stands in the way.
pub async fn offer(
    seed: &Seed,
    doc: &StateDoc,
    own: &Identity,
    lighthouse: &SeedLighthouse,
    request: &OfferRequest,
) -> Result<(LighthouseClient, Offer), Trouble> {
    let told = |e: &ClientError| Trouble::client(e);
    let client = LighthouseClient::new(lighthouse.https.clone(), lighthouse.key, Some(own))
        .map_err(|e| told(&e))?;
    let error = match client.offer(request).await {
        Ok(offer) => return Ok((client, offer)),
        Err(error) => error,
    };
    match succeed(&error, &trust(seed, doc), own).await {
        Ok(None) => Err(told(&error)),
        Ok(Some(next)) => {
            let offer = next.offer(request).await.map_err(|e| told(&e))?;
            say("join: the seed's lighthouse has a new key, which a root signed");
            Ok((next, offer))
        }
        Err(why) => Err(Trouble::other_key(&error, &why)),
    }
}
