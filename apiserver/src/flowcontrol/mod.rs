//! # Priority and fairness
//!
//! A server that is asked too much serves what matters first, and nobody's flood drowns the others. FlowSchemas say what a
//! request is, PriorityLevelConfigurations how much of the server it gets.
//!
//! ```text
//!  request ─▶ Snapshot: the first FlowSchema that matches      by precedence, then name
//!                 │ its level                    │ its flow    the user, the namespace, or all of the schema
//!                 ▼                              ▼
//!             Level    exempt: at once       a hand of queues (shuffle sharding); the least busy of them
//!                      limited: seats           │ full: 429
//!                         ▲                     ▼ the queue whose turn it is, by what each has had (fair queuing)
//!                         └── a Seat, given back when the request is done ── Pool: seats that other levels do not use
//! ```
//! Reading order: [`schema`] (what matches), [`shares`] (how many seats a level has), [`level`] (who gets the next one),
//! [`controller`] (the objects' conditions, and those that must be there).
//!
//! Watches hold a seat until they begin, logs, exec and the like none at all. Changes of the objects count from the next
//! request on. `k8s.io/apiserver/pkg/util/flowcontrol`.
//!
//! ## Left out, compared with Kubernetes
//! - Limits are not adjusted every ten seconds: a level borrows, seat by seat, what others do not use at that moment, within
//!   the same bounds (`lendablePercent`, `borrowingLimitPercent`). A lender gets its own seats back as soon as it wants them,
//!   even where those that borrowed them have not finished.
//! - The work of a list is estimated by the number of objects, not by their sizes; a write occupies one seat and none
//!   afterwards for the watchers it wakes.
//! - `Retry-After` is always one second.

pub mod controller;
pub mod level;
pub mod schema;
pub mod shares;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use minik8s_api::kinds::GroupResource;
use minik8s_clock::Clock;
use parking_lot::{Mutex, RwLock};

use self::level::{Admission, Level, Pool, Seat};
use self::schema::Schema;
use crate::cache::{Object, Objects};
use crate::identity::UserInfo;
use crate::query::Query;
use crate::request::RequestInfo;

/// The API group of the objects that steer.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// The resource of FlowSchemas.
pub const FLOW_SCHEMAS: &str = "flowschemas";
/// The resource of PriorityLevelConfigurations.
pub const PRIORITY_LEVELS: &str = "prioritylevelconfigurations";

/// Which FlowSchema a request matched, in its answer.
pub const FLOW_SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
/// Which level that led to.
pub const PRIORITY_LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The last resort: what nothing else matches.
const CATCH_ALL: &str = "catch-all";

/// How long a request waits for a seat: a quarter of the time a request may take
/// (`k8s.io/apiserver/pkg/server/config.go`).
const WAIT_LIMIT: Duration = Duration::from_secs(15);

/// Objects that one seat lists, and the seats of the largest list
/// (`k8s.io/apiserver/pkg/util/flowcontrol/request/config.go`).
const OBJECTS_PER_SEAT: usize = 100;
const MAX_SEATS: usize = 10;
/// No request takes more of a level than this (`max_seats.go`).
const MAX_SEATS_PERCENT: usize = 15;

/// Decides when a request is handled.
pub struct FlowControl {
    objects: Arc<dyn Objects>,
    clock: Clock,
    schemas: GroupResource,
    levels: GroupResource,
    pool: Arc<Pool>,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Held while the objects are read, so that a burst of requests reads them once.
    compiling: Mutex<()>,
}

/// The objects, compiled.
#[derive(Default)]
struct Snapshot {
    /// Of schemas and levels; `None` before the first time.
    versions: Option<(u64, u64)>,
    /// In the order in which they are asked.
    schemas: Vec<Arc<Schema>>,
    levels: BTreeMap<String, Arc<Level>>,
}

/// Why a request gets no seat, as `apiserver_flowcontrol_rejected_requests_total` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The level has no queues, and no seat.
    ConcurrencyLimit,
    /// Its queue is full.
    QueueFull,
    /// It waited too long.
    TimeOut,
    /// Its client has gone.
    Cancelled,
}

impl Rejection {
    /// All reasons.
    pub const ALL: [Rejection; 4] =
        [Rejection::ConcurrencyLimit, Rejection::QueueFull, Rejection::TimeOut, Rejection::Cancelled];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Rejection::ConcurrencyLimit => "concurrency-limit",
            Rejection::QueueFull => "queue-full",
            Rejection::TimeOut => "time-out",
            Rejection::Cancelled => "cancelled",
        }
    }
}

impl FlowControl {
    /// Steers by the objects of a cluster; `seats` are those of the whole server.
    pub fn new(objects: Arc<dyn Objects>, clock: Clock, seats: usize) -> FlowControl {
        FlowControl {
            objects,
            pool: Pool::new(seats, clock.clone()),
            clock,
            schemas: GroupResource::new(GROUP, FLOW_SCHEMAS),
            levels: GroupResource::new(GROUP, PRIORITY_LEVELS),
            snapshot: RwLock::default(),
            compiling: Mutex::new(()),
        }
    }

    /// What a request is.
    pub fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Arc<Schema> {
        let snapshot = self.snapshot();
        let found = snapshot.schemas.iter().find(|schema| schema.matches(user, info));
        // The last of them takes what no other does, even who is in no group at all.
        Arc::clone(found.or(snapshot.schemas.last()).expect("there is always the last resort"))
    }

    /// How many seats a request takes.
    pub fn seats(&self, schema: &Schema, info: &RequestInfo, query: &Query) -> usize {
        let lists = match info.verb.as_str() {
            "list" => true,
            "watch" => query.get("sendInitialEvents").is_some_and(|asked| asked == "true"),
            _ => false,
        };
        if !lists || !info.name.is_empty() {
            return 1;
        }
        let objects = self.objects.len(&GroupResource::new(info.group.as_str(), info.resource.as_str()));
        let most = (schema.level.nominal() * MAX_SEATS_PERCENT / 100).clamp(1, MAX_SEATS);
        objects.div_ceil(OBJECTS_PER_SEAT).clamp(1, most)
    }

    /// Waits until the request may be handled, and holds its place until it is.
    pub async fn admit(&self, schema: &Arc<Schema>, flow: u64, seats: usize) -> Result<Seat, Rejection> {
        match schema.level.admit(schema, flow, seats) {
            Admission::Now(seat) => Ok(seat),
            Admission::Never(rejection) => Err(rejection),
            Admission::Later(mut place) => {
                // Whether it was its turn or not, the place knows what is to be given back.
                let _ = self.clock.timeout(WAIT_LIMIT, place.turn()).await;
                place.take().ok_or(Rejection::TimeOut)
            }
        }
    }

    /// The schemas as they are now, for metrics.
    pub fn schemas(&self) -> Vec<Arc<Schema>> {
        self.snapshot().schemas.clone()
    }

    /// The levels as they are now, for metrics.
    pub fn levels(&self) -> Vec<Arc<Level>> {
        let mut levels: Vec<Arc<Level>> = self.snapshot().levels.values().cloned().collect();
        levels.sort_by(|a, b| a.name().cmp(b.name()));
        levels
    }

    fn versions(&self) -> (u64, u64) {
        (self.objects.version(&self.schemas), self.objects.version(&self.levels))
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let versions = Some(self.versions());
        let present = Arc::clone(&self.snapshot.read());
        if present.versions == versions {
            return present;
        }
        let _turn = self.compiling.lock();
        let present = Arc::clone(&self.snapshot.read());
        let versions = self.versions();
        if present.versions == Some(versions) {
            return present;
        }
        let snapshot = Arc::new(self.compile(&present, versions));
        *self.snapshot.write() = Arc::clone(&snapshot);
        snapshot
    }

    /// Reads the objects. Levels and counters that were there stay, with all that waits in them.
    fn compile(&self, before: &Snapshot, versions: (u64, u64)) -> Snapshot {
        let with_defaults = |resource: &GroupResource| {
            let present = self.objects.list(resource, None);
            let mut all: Vec<schema::Source> = present.iter().map(|object| schema::Source::of(object)).collect();
            for default in schema::mandatory(&resource.resource) {
                if !all.iter().any(|source| source.name == default.name) {
                    all.push(default);
                }
            }
            all
        };
        let configured = with_defaults(&self.levels);
        let specs: Vec<shares::Spec> = configured.iter().map(|level| shares::Spec::of(&level.spec)).collect();
        let limits = shares::limits(self.pool.seats(), &specs);
        let mut levels = BTreeMap::new();
        for ((source, spec), limits) in configured.iter().zip(specs).zip(limits) {
            let known = before.levels.get(&source.name).cloned();
            let level = known.unwrap_or_else(|| Level::new(&source.name, &self.pool, self.clock.clone()));
            level.configure(&spec, limits);
            levels.insert(source.name.clone(), (level, source.uid.clone()));
        }
        let mut schemas: Vec<Arc<Schema>> = with_defaults(&self.schemas)
            .iter()
            .filter_map(|source| {
                let (level, level_uid) = levels.get(schema::level_of(&source.spec))?;
                let known = before.schemas.iter().find(|known| known.is(&source.name, level));
                Some(Arc::new(Schema::compile(source, level, level_uid, known.map(|known| &known.counters))))
            })
            .collect();
        schemas.sort_by(|a, b| a.order().cmp(&b.order()));
        // Last, whatever precedence others claim.
        if let Some(at) = schemas.iter().position(|schema| schema.name == CATCH_ALL) {
            let last = schemas.remove(at);
            schemas.push(last);
        }
        let levels: BTreeMap<String, Arc<Level>> = levels.into_iter().map(|(name, (level, _))| (name, level)).collect();
        self.pool.set_levels(levels.values().cloned().collect());
        Snapshot { versions: Some(versions), schemas, levels }
    }
}

/// Whether requests of this kind are steered at all.
pub fn is_steered(info: &RequestInfo) -> bool {
    info.verb == "watch" || !crate::audit::is_long_running(info)
}

#[cfg(test)]
mod tests;
