//! The promises of the work queue, on a clock that the test moves.

use std::time::Duration;

use futures::FutureExt as _;
use minik8s_client::WorkQueue;
use minik8s_clock::{Clock, Simulation};

fn queue() -> (WorkQueue<&'static str>, Simulation) {
    let (clock, simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
    (WorkQueue::new(clock), simulation)
}

#[test]
fn a_key_is_handed_out_once_however_often_it_was_added() {
    let (queue, _) = queue();
    queue.add("a");
    queue.add("a");
    assert_eq!(queue.get().now_or_never(), Some(Some("a")));
    assert_eq!(queue.get().now_or_never(), None);
}

#[test]
fn a_key_added_while_it_is_worked_on_waits_until_it_is_done() {
    let (queue, _) = queue();
    queue.add("a");
    assert_eq!(queue.get().now_or_never(), Some(Some("a")));
    queue.add("a");
    assert_eq!(queue.get().now_or_never(), None, "two workers would have the same key");
    queue.done(&"a");
    assert_eq!(queue.get().now_or_never(), Some(Some("a")));
}

#[test]
fn of_several_delays_the_earliest_counts() {
    let (queue, simulation) = queue();
    queue.add_after("a", Duration::from_secs(10));
    queue.add_after("a", Duration::from_secs(2));
    queue.add_after("a", Duration::from_secs(30));
    simulation.advance(Duration::from_secs(1));
    assert_eq!(queue.get().now_or_never(), None);
    simulation.advance(Duration::from_secs(1));
    assert_eq!(queue.get().now_or_never(), Some(Some("a")));
    queue.done(&"a");
    simulation.advance(Duration::from_secs(60));
    assert_eq!(queue.get().now_or_never(), None);
}

#[test]
fn failures_of_a_key_lengthen_its_pause_until_it_is_forgotten() {
    let (queue, simulation) = queue();
    for pause in [5, 10, 20, 40] {
        queue.add_rate_limited("a");
        simulation.advance(Duration::from_millis(pause - 1));
        assert_eq!(queue.get().now_or_never(), None);
        simulation.advance(Duration::from_millis(1));
        assert_eq!(queue.get().now_or_never(), Some(Some("a")));
        queue.done(&"a");
    }
    assert_eq!(queue.retries(&"a"), 4);
    queue.forget(&"a");
    queue.add_rate_limited("a");
    simulation.advance(Duration::from_millis(5));
    assert_eq!(queue.get().now_or_never(), Some(Some("a")));
}

#[test]
fn a_waiting_worker_is_woken_by_an_earlier_key_and_by_the_end() {
    let (clock, simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
    let queue = WorkQueue::new(clock.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(move || {
            simulation.advance_to_next();
        })
        .build()
        .unwrap();
    let (worker, order) = (queue.clone(), clock.clone());
    let taken = runtime.block_on(async move {
        let taken = tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(key) = worker.get().await {
                taken.push((key, order.monotonic().as_secs()));
                worker.done(&key);
            }
            taken
        });
        queue.add_after("late", Duration::from_secs(100));
        tokio::task::yield_now().await;
        queue.add_after("early", Duration::from_secs(7));
        clock.sleep(Duration::from_secs(200)).await;
        queue.shut_down();
        taken.await.unwrap()
    });
    assert_eq!(taken, [("early", 7), ("late", 100)]);
}
