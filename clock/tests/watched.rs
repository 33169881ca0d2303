//! Values that are watched.

use minik8s_clock::{Ended, Watched};
use std::sync::{Arc, Mutex};

/// More watchers than any scheme of a few queues would keep in order by chance.
const MANY: usize = 100;

/// Lets every task run until it waits. A runtime comes back to its main task before it has been at all others.
async fn all_wait() {
    for _ in 0..MANY {
        tokio::task::yield_now().await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

#[test]
fn watchers_are_woken_in_the_order_of_waiting() {
    let (value, order) = (Watched::new(0), Arc::new(Mutex::new(Vec::new())));
    runtime().block_on(async {
        let tasks: Vec<_> = (0..MANY)
            .map(|number| {
                let (mut watcher, order) = (value.watch(), order.clone());
                tokio::spawn(async move {
                    // Two changes: who waits again keeps the order.
                    watcher.wait_for(|value| *value == 2).await.unwrap();
                    order.lock().unwrap().push(number);
                })
            })
            .collect();
        all_wait().await;
        value.set(1);
        all_wait().await;
        value.set(2);
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(*order.lock().unwrap(), (0..MANY).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_watcher_sees_what_changed_before_it_waits() {
    let value = Watched::new('a');
    let mut watcher = value.watch();
    value.set('b');
    watcher.changed().await.unwrap();
    assert_eq!(watcher.get(), 'b');
    value.modify(|held| *held = 'c');
    assert_eq!(watcher.get(), 'c', "a look counts as seen");
    drop(value);
    assert_eq!(watcher.changed().await, Err(Ended));
    assert_eq!(watcher.wait_for(|value| *value == 'c').await, Ok('c'), "the last value stays");
}

#[tokio::test]
async fn a_change_before_the_end_is_told_before_the_end() {
    let value = Watched::new(0);
    let mut watcher = value.watch();
    value.set(1);
    drop(value);
    assert_eq!(watcher.changed().await, Ok(()));
    assert_eq!(watcher.changed().await, Err(Ended));
}

#[tokio::test]
async fn who_stops_waiting_leaves_nothing_behind() {
    let value = Watched::new(0);
    let mut watcher = value.watch();
    let other = watcher.clone();
    assert_eq!(value.watchers(), 2);
    {
        let mut waiting = Box::pin(watcher.changed());
        assert!(answer_now(&mut waiting).await.is_none());
    }
    value.set(1);
    assert_eq!(watcher.changed().await, Ok(()));
    drop((watcher, other));
    assert_eq!(value.watchers(), 0);
}

/// The answer of a future that has one at once.
async fn answer_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
