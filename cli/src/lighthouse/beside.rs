//! Several calls at once, of which one that hangs must not hold up the others.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The answers, in the order of the calls. Once one succeeded the others have `grace`; none: it was
/// too late.
pub async fn beside<T, E, F>(
    calls: impl IntoIterator<Item = F>,
    grace: Duration,
) -> Vec<Option<Result<T, E>>>
where
    F: Future<Output = Result<T, E>>,
{
    let numbered = calls.into_iter().enumerate();
    let mut asking: FuturesUnordered<_> = numbered
        .map(|(at, call)| async move { (at, call.await) })
        .collect();
    let mut answers = vec![];
    answers.resize_with(asking.len(), || None);
    let mut until = None;
    loop {
        let next = match until {
            None => asking.next().await,
            Some(until) => timeout_at(until, asking.next()).await.unwrap_or(None),
        };
        let Some((at, answer)) = next else {
            return answers;
        };
        if answer.is_ok() && until.is_none() {
            until = Some(Instant::now() + grace);
        }
        answers[at] = Some(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_costs_the_grace_and_one_that_fails_nothing() {
        let call = async |n: u8| match n {
            0 => pending().await,
            1 => Err(1),
            n => {
                tokio::time::sleep(Duration::from_secs(n.into())).await;
                Ok(n)
            }
        };
        let grace = Duration::from_secs(2);
        let begun = Instant::now();
        let answers = beside([0, 1, 5, 4, 7].map(call), grace).await;
        assert_eq!(
            answers,
            [None, Some(Err(1)), Some(Ok(5)), Some(Ok(4)), None]
        );
        assert_eq!(begun.elapsed().as_secs(), 6);
        // Where all fail nobody waits.
        assert_eq!(beside([1, 1].map(call), grace).await.len(), 2);
        assert_eq!(begun.elapsed().as_secs(), 6);
    }
}
