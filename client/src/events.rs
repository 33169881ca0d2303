//! Events: what a component tells users about an object, in `kubectl describe` and `kubectl events`.
//!
//! Recording never blocks and never fails: events go through a bounded channel to one task a recorder, which merges
//! repetitions as client-go's correlator does (`tools/record/events_cache.go`):
//! - the same event again raises `count` and `lastTimestamp` of the first one;
//! - more than [`SIMILAR_MAX`] events that differ only in their message, within [`SIMILAR_WINDOW`], become one whose
//!   message starts with "(combined from similar events)";
//! - an object that produces events without end is held to [`BURST`] at once and one every [`REFILL`] thereafter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event as ApiEvent, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

use crate::client::{Client, is_not_found};
use crate::informer::Watched;

/// How many events wait for the API at most; beyond that new ones are dropped, and the log says so.
const QUEUE_EVENTS: usize = 1000;
/// How many different events, groups and objects are remembered for merging.
const REMEMBERED: usize = 4096;
/// How many events of one group keep their own message.
const SIMILAR_MAX: usize = 10;
/// How long a group remembers its messages.
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// How many events an object may cause at once.
const BURST: f64 = 25.0;
/// How long it takes until an object that used up its burst may cause one more event.
const REFILL: Duration = Duration::from_secs(300);

/// How far the time in an event's name may be off.
const NAME_SPREAD_NANOSECONDS: u64 = 1 << 20;

/// The two types of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Something a user should look at.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// The reference by which events name `object`.
pub fn object_reference<K>(object: &K) -> ObjectReference
where
    K: Watched + k8s_openapi::Resource,
{
    let meta = object.object_meta();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct About {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    field_path: String,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    about: About,
    kind: &'static str,
    reason: String,
}

struct Occurrence {
    object: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Records the events of one component. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Occurrence>,
    clock: minik8s_clock::Clock,
}

impl EventRecorder {
    /// A recorder for `component` (`kubelet`, `default-scheduler`, …) on `host`, with its task started.
    /// The task ends when the last clone is gone and all events are sent.
    pub fn new(client: Client, component: &str, host: Option<&str>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
        let clock = client.clock().clone();
        let source = EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) };
        tokio::spawn(Correlator::new(client, source).run(receiver));
        Self { sender, clock }
    }

    /// Records an event about `object`.
    pub fn event(&self, object: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let occurrence = Occurrence {
            object: object.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            at: self.clock.now(),
        };
        if let Err(error) = self.sender.try_send(occurrence) {
            tracing::warn!(reason, %error, "event dropped");
        }
    }
}

/// A map that forgets its oldest entry when it is full.
struct Remembered<K, V> {
    entries: BTreeMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Clone + Ord, V> Remembered<K, V> {
    fn new() -> Self {
        Self { entries: BTreeMap::new(), order: VecDeque::new() }
    }

    fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            if self.order.len() >= REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.entries.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        self.entries.entry(key).or_insert_with(new)
    }
}

struct Similar {
    messages: BTreeSet<String>,
    last: Timestamp,
}

struct Tokens {
    left: f64,
    at: Timestamp,
}

struct Written {
    name: String,
    count: i32,
    first: Timestamp,
}

struct Correlator {
    client: Client,
    source: EventSource,
    groups: Remembered<Group, Similar>,
    written: Remembered<(Group, String), Written>,
    tokens: Remembered<About, Tokens>,
}

impl Correlator {
    fn new(client: Client, source: EventSource) -> Self {
        Self { client, source, groups: Remembered::new(), written: Remembered::new(), tokens: Remembered::new() }
    }

    async fn run(mut self, mut receiver: mpsc::Receiver<Occurrence>) {
        while let Some(occurrence) = receiver.recv().await {
            if let Err(error) = self.record(occurrence).await {
                // Events are best effort: one that cannot be written (its namespace ends, say) is only logged.
                tracing::debug!(%error, "event not written");
            }
        }
    }

    async fn record(&mut self, occurrence: Occurrence) -> Result<(), kube::Error> {
        let about = About {
            kind: occurrence.object.kind.clone().unwrap_or_default(),
            namespace: occurrence.object.namespace.clone().unwrap_or_default(),
            name: occurrence.object.name.clone().unwrap_or_default(),
            uid: occurrence.object.uid.clone().unwrap_or_default(),
            field_path: occurrence.object.field_path.clone().unwrap_or_default(),
        };
        let group = Group { about, kind: occurrence.kind.as_str(), reason: occurrence.reason.clone() };
        let (key, message) = self.aggregate(&group, &occurrence);
        if !self.admit(&group.about, occurrence.at) {
            return Ok(());
        }
        let namespace = occurrence.object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api = self.client.namespaced::<ApiEvent>(&namespace);
        let known = self.written.entries.get_mut(&(group.clone(), key.clone()));
        if let Some(known) = known {
            known.count += 1;
            let patch =
                json!({"count": known.count, "lastTimestamp": Time(seconds(occurrence.at)), "message": message});
            match api.patch(&known.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => return Ok(()),
                // It outlived its time to live: begin anew.
                Err(error) if is_not_found(&error) => known.count = 1,
                Err(error) => return Err(error),
            }
        }
        // The time of the event, as in Kubernetes; a little off, for in virtual time much happens at one moment.
        let stamp = occurrence.at.as_nanosecond() + i128::from(self.client.random().below(NAME_SPREAD_NANOSECONDS));
        let name = format!("{}.{stamp:x}", group.about.name);
        let at = occurrence.at;
        let written = self.written.entry((group, key), || Written { name: String::new(), count: 1, first: at });
        if written.count == 1 {
            written.first = at;
        }
        written.name.clone_from(&name);
        let event = self.event(occurrence, namespace, name, message);
        api.create(&PostParams::default(), &event).await?;
        Ok(())
    }

    fn event(&self, occurrence: Occurrence, namespace: String, name: String, message: String) -> ApiEvent {
        ApiEvent {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: occurrence.object,
            reason: Some(occurrence.reason),
            message: Some(message),
            source: Some(self.source.clone()),
            first_timestamp: Some(Time(seconds(occurrence.at))),
            last_timestamp: Some(Time(seconds(occurrence.at))),
            count: Some(1),
            type_: Some(occurrence.kind.as_str().to_owned()),
            reporting_component: self.source.component.clone(),
            reporting_instance: Some(self.source.host.clone().unwrap_or_default()),
            ..ApiEvent::default()
        }
    }

    /// The key under which repetitions of the event are counted, and the message to write.
    fn aggregate(&mut self, group: &Group, occurrence: &Occurrence) -> (String, String) {
        let similar = self.groups.entry(group.clone(), || Similar { messages: BTreeSet::new(), last: occurrence.at });
        if since(similar.last, occurrence.at) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = occurrence.at;
        similar.messages.insert(occurrence.message.clone());
        if similar.messages.len() < SIMILAR_MAX {
            return (occurrence.message.clone(), occurrence.message.clone());
        }
        similar.messages.remove(&occurrence.message);
        (String::new(), format!("(combined from similar events): {}", occurrence.message))
    }

    /// Takes a token of the object's bucket, where there is one.
    fn admit(&mut self, about: &About, at: Timestamp) -> bool {
        let bucket = self.tokens.entry(about.clone(), || Tokens { left: BURST, at });
        let earned = since(bucket.at, at).as_secs_f64() / REFILL.as_secs_f64();
        bucket.left = (bucket.left + earned).min(BURST);
        bucket.at = at;
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }
}

fn since(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

/// Kubernetes' `Time` has whole seconds.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
