//! Tasks that a node needs for as long as its agent runs. A panic in one must not leave an agent
//! that beats and does only half its work: it ends the agent, and init starts it anew.

use futures_util::FutureExt as _;
use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::task::JoinHandle;

/// For the console's thread to print the last line.
const FAREWELL: Duration = Duration::from_millis(300);

/// Starts `task`; `name` says on the console which one panicked.
pub fn forever(
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(why) = watched(task).await {
            crate::console::say(&format!(
                "the agent's part {name} died and the agent is started anew: {why}"
            ));
            std::thread::sleep(FAREWELL);
            std::process::exit(1);
        }
    })
}

/// Runs `task` to its end.
///
/// # Errors
/// The words of its panic.
async fn watched(task: impl Future<Output = ()>) -> Result<(), String> {
    // Nothing of the task is used after its panic.
    AssertUnwindSafe(task)
        .catch_unwind()
        .await
        .map_err(|panic| words(&*panic))
}

fn words(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "a panic without words".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_in_its_words() {
        let bad = async { panic!("after {} s", 3) };
        assert_eq!(watched(bad).await, Err("after 3 s".into()));
        let plain = async { panic!("plain") };
        assert_eq!(watched(plain).await, Err("plain".into()));
        assert_eq!(watched(async {}).await, Ok(()));
    }
}
