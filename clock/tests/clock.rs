//! Real, paced and simulated time.

use minik8s_clock::{Clock, Elapsed, Pace, Simulation};
use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn simulated() -> (Clock, Simulation) {
    Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap())
}

/// A runtime whose time moves whenever it has nothing to run.
fn virtual_runtime(simulation: Simulation) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .on_thread_park(move || {
            simulation.advance_to_next();
        })
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_real_sleep_ends_after_its_deadline() {
    let clock = Clock::real();
    let sleep = clock.sleep(Duration::from_millis(2));
    let deadline = sleep.deadline();
    sleep.await;
    assert!(clock.monotonic() >= deadline);
    assert_eq!(clock.pending(), 0);
}

#[tokio::test]
async fn an_earlier_deadline_overtakes_a_later_one() {
    let clock = Clock::real();
    let late = tokio::spawn(clock.sleep(seconds(3600)));
    tokio::task::yield_now().await;
    clock.sleep(Duration::from_millis(1)).await;
    assert!(!late.is_finished());
    late.abort();
    assert!(late.await.unwrap_err().is_cancelled());
    assert_eq!(clock.pending(), 0, "a cancelled sleep leaves nothing behind");
}

#[tokio::test]
async fn a_paced_clock_jumps_and_speeds_up() {
    let (clock, pace): (Clock, Pace) = Clock::paced();
    let wall = clock.now();
    let sleep = tokio::spawn(clock.sleep(seconds(7200)));
    tokio::task::yield_now().await;
    pace.forward(seconds(7200));
    sleep.await.unwrap();
    assert!(clock.now().duration_since(wall) >= jiff::SignedDuration::from_secs(7200));
    pace.set_speed(1_000_000.0);
    clock.sleep(seconds(600)).await;
    let before = clock.monotonic();
    pace.set_speed(1.0);
    assert!(clock.monotonic() >= before, "a change of pace never turns time back");
}

#[test]
fn the_driver_survives_its_clock_while_somebody_sleeps() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sleep = Clock::real().sleep(Duration::from_millis(1));
    runtime.block_on(sleep);
}

#[test]
fn simulated_time_stands_still_until_moved() {
    let (clock, simulation) = simulated();
    assert_eq!(clock.now().to_string(), "2026-01-01T00:00:00Z");
    assert!(!simulation.advance_to_next(), "nobody waits");
    simulation.advance(seconds(90));
    assert_eq!(clock.now().to_string(), "2026-01-01T00:01:30Z");
    assert_eq!(clock.monotonic(), seconds(90));
}

#[test]
fn a_day_of_many_tasks_passes_in_order() {
    let (clock, simulation) = simulated();
    let log = Arc::new(Mutex::new(Vec::new()));
    virtual_runtime(simulation).block_on(async {
        let tasks = [("hourly", 3600), ("six-hourly", 21600)].map(|(name, period)| {
            let (clock, log) = (clock.clone(), log.clone());
            tokio::spawn(async move {
                for _ in 0..86400 / period {
                    clock.sleep(seconds(period)).await;
                    log.lock().unwrap().push((clock.monotonic().as_secs() / 3600, name));
                }
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
    });
    let log = log.lock().unwrap();
    assert_eq!(log.len(), 28);
    assert!(log.is_sorted_by_key(|(hour, _)| *hour));
    // At the same moment, who began to wait first is woken first.
    assert_eq!(log[5..7], [(6, "six-hourly"), (6, "hourly")]);
    assert_eq!(clock.now().to_string(), "2026-01-02T00:00:00Z");
    assert_eq!(clock.pending(), 0);
}

#[test]
fn timeouts() {
    let (clock, simulation) = simulated();
    virtual_runtime(simulation).block_on(async {
        assert_eq!(clock.timeout(seconds(5), pending::<()>()).await, Err(Elapsed));
        assert_eq!(clock.monotonic(), seconds(5));
        assert_eq!(clock.timeout(seconds(5), clock.sleep(seconds(4))).await, Ok(()));
        assert_eq!(clock.timeout(seconds(5), clock.sleep(seconds(5))).await, Ok(()), "ready wins");
        assert_eq!(clock.timeout(Duration::ZERO, async { 7 }).await, Ok(7));
        assert_eq!(clock.timeout(Duration::MAX, async { 7 }).await, Ok(7));
    });
    assert_eq!(clock.pending(), 0);
}

#[test]
fn advance_stops_at_its_limit() {
    let (clock, simulation) = simulated();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let task = tokio::spawn(clock.sleep(seconds(10)));
        tokio::task::yield_now().await;
        assert!(!simulation.advance_to_next_until(seconds(9)));
        simulation.advance(seconds(9));
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        simulation.advance(seconds(1));
        task.await.unwrap();
    });
}

#[test]
fn a_task_dropped_with_its_last_waker_may_hold_other_sleeps() {
    let (clock, simulation) = simulated();
    let outer = clock.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async move {
        tokio::spawn(async move {
            let other = clock.sleep(seconds(20));
            tokio::select! { biased; () = clock.sleep(seconds(10)) => {}, () = other => {} }
        });
        tokio::task::yield_now().await;
    });
    assert_eq!(outer.pending(), 2);
    drop(runtime);
    assert_eq!(outer.pending(), 0);
    assert!(!simulation.advance_to_next());
}

#[test]
fn ticks_keep_step_however_long_the_work_takes() {
    let (clock, simulation) = simulated();
    virtual_runtime(simulation).block_on(async {
        clock.sleep(seconds(3)).await;
        let mut ticks = clock.ticks(seconds(10));
        let mut at = Vec::new();
        for work in [0, 4, 9, 25, 10, 0] {
            ticks.tick().await;
            at.push(clock.monotonic().as_secs());
            clock.sleep(seconds(work)).await;
        }
        // What passed meanwhile is not made up for.
        assert_eq!(at, [13, 23, 33, 43, 73, 93]);
    });
}
