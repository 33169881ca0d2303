//! The queue of pods that wait for a node. (Kubernetes: `pkg/scheduler/backend/queue/scheduling_queue.go`.)
//!
//! ```text
//!            add                    no node fits
//!   gated ◄──────► active ──pop──► in flight ─────► unschedulable
//!                    ▲                 │                  │ an event that may help (or five minutes)
//!                    └──── backoff ◄───┴──────────────────┘
//!                         1 s … 10 s
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::framework::{ClusterEvent, Plugin};
use crate::node_info::PodInfo;

/// The first pause of a pod that did not fit, unless operators say otherwise; it doubles up to [`MAX_BACKOFF`].
pub const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// The longest pause.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A pod that no event has helped is tried again after this.
pub const MAX_UNSCHEDULABLE: Duration = Duration::from_secs(300);

/// A pod in the queue.
#[derive(Clone)]
pub struct QueuedPod {
    /// The pod.
    pub info: Arc<PodInfo>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it came, by the clock's own count.
    pub since: Duration,
    /// The plugins that refused it last.
    pub refused_by: BTreeSet<&'static str>,
    /// The number of events that had happened when it was taken.
    taken_at: u64,
}

enum Room {
    Active((i64, Duration, u64)),
    Backoff((Duration, u64)),
    Unschedulable(Duration),
    Gated,
}

struct Entry {
    pod: QueuedPod,
    room: Room,
}

/// All pods that wait. Its owner calls it under a lock and wakes the loop.
pub struct Queue {
    entries: BTreeMap<String, Entry>,
    active: BTreeMap<(i64, Duration, u64), String>,
    backoff: BTreeMap<(Duration, u64), String>,
    in_flight: BTreeMap<String, Option<Arc<PodInfo>>>,
    last_event: BTreeMap<ClusterEvent, u64>,
    events: u64,
    arrivals: u64,
    profiles: BTreeMap<String, Arc<Vec<Box<dyn Plugin>>>>,
    /// The first and the longest pause.
    pauses: (Duration, Duration),
}

impl Queue {
    /// An empty queue; the plugins of the profile that a pod asks for by `schedulerName` say whether it is gated and
    /// which events help it.
    pub fn new(profiles: BTreeMap<String, Arc<Vec<Box<dyn Plugin>>>>, pauses: (Duration, Duration)) -> Self {
        Self {
            entries: BTreeMap::new(),
            active: BTreeMap::new(),
            backoff: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            last_event: BTreeMap::new(),
            events: 0,
            arrivals: 0,
            profiles,
            pauses,
        }
    }

    /// The plugins that decide about a pod; none where it asks for somebody else.
    fn plugins(&self, pod: &PodInfo) -> &[Box<dyn Plugin>] {
        self.profiles.get(pod.scheduler_name()).map_or(&[], |plugins| plugins.as_slice())
    }

    /// Takes in a pod, new or changed.
    pub fn set(&mut self, info: Arc<PodInfo>, now: Duration) {
        let uid = info.uid().to_owned();
        if let Some(newer) = self.in_flight.get_mut(&uid) {
            *newer = Some(info);
            return;
        }
        match self.entries.remove(&uid) {
            Some(entry) => {
                self.leave(&uid, &entry.room);
                let changed = entry.pod.info.pod.spec != info.pod.spec
                    || entry.pod.info.pod.metadata.labels != info.pod.metadata.labels;
                let pod = QueuedPod { info, ..entry.pod };
                match entry.room {
                    // What the pod itself asks for may have changed, which may help as much as an event.
                    Room::Unschedulable(_) if changed => self.ready(pod, now),
                    Room::Gated => self.enter(pod, now),
                    room => self.settle(pod, room),
                }
            }
            None => {
                let pod = QueuedPod { info, attempts: 0, since: now, refused_by: BTreeSet::new(), taken_at: 0 };
                self.enter(pod, now);
            }
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) {
        if let Some(entry) = self.entries.remove(uid) {
            self.leave(uid, &entry.room);
        }
        self.in_flight.remove(uid);
    }

    /// Takes the pod whose turn it is: by priority, then by age.
    pub fn pop(&mut self, now: Duration) -> Option<QueuedPod> {
        self.wake(now);
        let (_, uid) = self.active.pop_first()?;
        let mut pod = self.entries.remove(&uid)?.pod;
        pod.attempts += 1;
        pod.taken_at = self.events;
        self.in_flight.insert(uid, None);
        Some(pod)
    }

    /// When something becomes ready by itself, if anything does.
    pub fn next_wake(&self) -> Option<Duration> {
        let backoff = self.backoff.first_key_value().map(|((at, _), _)| *at);
        let unschedulable = self.entries.values().filter_map(|entry| match entry.room {
            Room::Unschedulable(since) => Some(since + MAX_UNSCHEDULABLE),
            _ => None,
        });
        backoff.into_iter().chain(unschedulable).min()
    }

    /// The pod found a node, or is no longer ours.
    pub fn done(&mut self, uid: &str) {
        self.in_flight.remove(uid);
    }

    /// The pod found no node, refused by `plugins`; or the attempt failed for another reason, with none.
    pub fn requeue(&mut self, mut pod: QueuedPod, plugins: BTreeSet<&'static str>, now: Duration) {
        let uid = pod.info.uid().to_owned();
        match self.in_flight.remove(&uid) {
            // It is gone meanwhile.
            None => return,
            Some(Some(newer)) => pod.info = newer,
            Some(None) => {}
        }
        pod.refused_by = plugins;
        let helped = pod.refused_by.is_empty()
            || self.helpful(&pod).any(|event| self.last_event.get(&event).is_some_and(|at| *at > pod.taken_at));
        if helped { self.ready(pod, now) } else { self.settle(pod, Room::Unschedulable(now)) }
    }

    /// Something happened: pods whose refusal it may lift get another attempt.
    pub fn on_event(&mut self, event: ClusterEvent, now: Duration) {
        self.events += 1;
        self.last_event.insert(event, self.events);
        let waiting = self.entries.iter().filter(|(_, entry)| matches!(entry.room, Room::Unschedulable(_)));
        let helped: Vec<String> = waiting
            .filter(|(_, entry)| self.helpful(&entry.pod).any(|helpful| helpful == event))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in helped {
            if let Some(entry) = self.entries.remove(&uid) {
                self.ready(entry.pod, now);
            }
        }
    }

    /// How many pods wait in each of the queues, by Kubernetes' names of them.
    pub fn pending(&self) -> [(&'static str, usize); 4] {
        let count = |room: fn(&Room) -> bool| self.entries.values().filter(|entry| room(&entry.room)).count();
        [
            ("active", self.active.len()),
            ("backoff", self.backoff.len()),
            ("gated", count(|room| matches!(room, Room::Gated))),
            ("unschedulable", count(|room| matches!(room, Room::Unschedulable(_)))),
        ]
    }

    fn helpful<'a>(&'a self, pod: &'a QueuedPod) -> impl Iterator<Item = ClusterEvent> + 'a {
        let refusing = self.plugins(&pod.info).iter().filter(|plugin| pod.refused_by.contains(plugin.name()));
        refusing.flat_map(|plugin| plugin.events().iter().copied())
    }

    fn enter(&mut self, pod: QueuedPod, now: Duration) {
        let mut gates = self.plugins(&pod.info).iter().filter_map(|plugin| plugin.pre_enqueue());
        if gates.any(|gate| gate.pre_enqueue(&pod.info).is_err()) {
            self.settle(pod, Room::Gated);
        } else {
            self.ready(pod, now);
        }
    }

    /// Into the active room, or first into the one next to it until its pause is over.
    fn ready(&mut self, pod: QueuedPod, now: Duration) {
        self.arrivals += 1;
        let pause = backoff(pod.attempts, self.pauses);
        let room = if pause.is_zero() {
            Room::Active((-i64::from(pod.info.priority()), pod.since, self.arrivals))
        } else {
            Room::Backoff((now + pause, self.arrivals))
        };
        self.settle(pod, room);
    }

    fn settle(&mut self, pod: QueuedPod, room: Room) {
        let uid = pod.info.uid().to_owned();
        match &room {
            Room::Active(key) => {
                self.active.insert(*key, uid.clone());
            }
            Room::Backoff(key) => {
                self.backoff.insert(*key, uid.clone());
            }
            Room::Unschedulable(_) | Room::Gated => {}
        }
        self.entries.insert(uid, Entry { pod, room });
    }

    fn leave(&mut self, _uid: &str, room: &Room) {
        match room {
            Room::Active(key) => {
                self.active.remove(key);
            }
            Room::Backoff(key) => {
                self.backoff.remove(key);
            }
            Room::Unschedulable(_) | Room::Gated => {}
        }
    }

    /// Moves the pods whose pause is over.
    fn wake(&mut self, now: Duration) {
        let long = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.room, Room::Unschedulable(since) if since + MAX_UNSCHEDULABLE <= now));
        let due: Vec<String> = long.map(|(uid, _)| uid.clone()).collect();
        for uid in due {
            self.activate(&uid);
        }
        while let Some(first) = self.backoff.first_entry() {
            if first.key().0 > now {
                break;
            }
            let uid = first.remove();
            self.activate(&uid);
        }
    }

    fn activate(&mut self, uid: &str) {
        if let Some(entry) = self.entries.remove(uid) {
            self.arrivals += 1;
            let pod = entry.pod;
            let room = Room::Active((-i64::from(pod.info.priority()), pod.since, self.arrivals));
            self.settle(pod, room);
        }
    }
}

fn backoff(attempts: u32, (first, longest): (Duration, Duration)) -> Duration {
    match attempts {
        0 => Duration::ZERO,
        n => first.saturating_mul(1 << (n - 1).min(10)).min(longest),
    }
}
