//! The loop around `sync(key)`: take a key, reconcile, retry with a pause where it failed.

use std::any::Any;
use std::fmt::Display;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::client::words;
use crate::queue::WorkQueue;

/// The words of a failed sync. Left to itself an error of the API shows its whole `Status`, as code.
fn plain<E: Display + 'static>(error: &E) -> String {
    let api = (error as &dyn Any).downcast_ref::<kube::Error>();
    api.map_or_else(|| error.to_string(), words)
}

/// Runs `workers` loops over `queue` until `cancel`; returns when the last one has ended.
///
/// `sync` makes one attempt. An error brings the key back after a pause that grows with its failures; the conflict of
/// two writers is the everyday case and is logged quietly.
pub async fn run_controller<T, F, Fut, E>(
    name: &'static str,
    queue: WorkQueue<T>,
    workers: usize,
    cancel: CancellationToken,
    sync: F,
) where
    T: Clone + Ord + Send + std::fmt::Debug + 'static,
    F: Fn(T) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Display + Send + 'static,
{
    let loops = (0..workers.max(1)).map(|_| {
        let (queue, sync) = (queue.clone(), sync.clone());
        tokio::spawn(async move {
            while let Some(key) = queue.get().await {
                match sync(key.clone()).await {
                    Ok(()) => queue.forget(&key),
                    Err(error) => {
                        let attempts = queue.retries(&key);
                        let error = plain(&error);
                        if attempts < 3 {
                            tracing::debug!(target: "controller", controller = name, ?key, %error, "sync failed, retrying");
                        } else {
                            tracing::warn!(target: "controller", controller = name, ?key, %error, attempts, "sync failed, retrying");
                        }
                        queue.add_rate_limited(key.clone());
                    }
                }
                queue.done(&key);
            }
        })
    });
    let loops = join_all(loops.collect::<Vec<_>>());
    tokio::pin!(loops);
    let ended = tokio::select! {
        biased;
        ended = &mut loops => ended,
        () = cancel.cancelled() => {
            queue.shut_down();
            loops.await
        }
    };
    for result in ended {
        if let Err(error) = result
            && error.is_panic()
        {
            // A panic is a broken invariant: the component must not go on with a worker less in silence.
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
