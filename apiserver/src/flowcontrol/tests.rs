//! Flow control: what matches, who waits, who is refused.

use std::fmt::Write;

use http::Method;
use minik8s_clock::Simulation;
use serde_json::{Value, json};

use super::shares::{Limits, Queuing, Spec};
use super::*;
use crate::identity::fixture::World;

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo::new(name, groups.iter().copied())
}

fn info(method: &str, path: &str) -> RequestInfo {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    RequestInfo::parse(&method.parse::<Method>().expect("a method"), path, &Query::parse(query))
}

/// Stores an object of a resource.
fn put(world: &World, group: &str, resource: &str, mut object: Value) {
    let kind = world.kinds.by_resource(group, "v1", resource).expect("a kind");
    object["kind"] = json!(kind.kind);
    object["apiVersion"] = json!(kind.api_version());
    world.put(object);
}

fn control(objects: Vec<(&str, Value)>) -> (FlowControl, World) {
    let world = World::new();
    for (resource, object) in objects {
        put(&world, GROUP, resource, object);
    }
    (FlowControl::new(world.objects(), world.clock.clone(), 600), world)
}

fn new_cluster() -> Vec<(&'static str, Value)> {
    [FLOW_SCHEMAS, PRIORITY_LEVELS]
        .into_iter()
        .flat_map(|resource| crate::bootstrap::flow_control(resource).into_iter().map(move |object| (resource, object)))
        .collect()
}

#[tokio::test]
async fn requests_of_a_new_cluster_go_where_kubernetes_sends_them() {
    let (control, _) = control(new_cluster());
    let check = |who: UserInfo, method: &str, path: &str, expect: &str| {
        let schema = control.classify(&who, &info(method, path));
        assert_eq!(format!("{} {}", schema.name, schema.level.name()), expect, "{} {method} {path}", who.name);
    };
    let pods = "/api/v1/namespaces/a/pods";
    check(user("admin", &["system:masters"]), "GET", pods, "exempt exempt");
    check(UserInfo::anonymous(), "GET", "/healthz", "probes exempt");
    check(UserInfo::anonymous(), "GET", "/livez/ping", "probes exempt");
    check(UserInfo::anonymous(), "GET", "/version", "global-default global-default");
    check(UserInfo::node("n1"), "PUT", "/api/v1/nodes/n1/status", "system-node-high node-high");
    check(UserInfo::node("n1"), "GET", pods, "system-nodes system");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler";
    check(user("system:kube-scheduler", &[]), "PUT", lease, "system-leader-election leader-election");
    check(user("system:kube-scheduler", &[]), "GET", pods, "kube-scheduler workload-high");
    check(
        UserInfo::service_account("kube-system", "job-controller"),
        "GET",
        pods,
        "kube-system-service-accounts workload-high",
    );
    check(UserInfo::service_account("a", "default"), "GET", pods, "service-accounts workload-low");
    check(user("dev", &[]), "GET", pods, "global-default global-default");
    let nobody = UserInfo { name: "nobody".to_owned(), ..UserInfo::default() };
    check(nobody, "GET", pods, "catch-all catch-all");
}

#[tokio::test]
async fn changes_count_at_once_and_schemas_without_a_level_do_not() {
    let (control, world) = control(Vec::new());
    let classify = || control.classify(&user("dev", &[]), &info("GET", "/api/v1/pods")).name.clone();
    assert_eq!(classify(), "catch-all", "the mandatory ones need no objects");
    let rule = json!({
        "subjects": [{ "kind": "User", "user": { "name": "dev" } }],
        "resourceRules": [{ "verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "clusterScope": true }],
    });
    let schema = |precedence: i64| {
        json!({ "metadata": { "name": format!("mine-{precedence}"), "uid": "u" }, "spec": {
            "matchingPrecedence": precedence, "priorityLevelConfiguration": { "name": "mine" }, "rules": [rule] } })
    };
    put(&world, GROUP, FLOW_SCHEMAS, schema(500));
    assert_eq!(classify(), "catch-all", "its level does not exist");
    let limited = json!({ "nominalConcurrencyShares": 5, "limitResponse": { "type": "Reject" } });
    let level =
        json!({ "metadata": { "name": "mine", "uid": "l" }, "spec": { "type": "Limited", "limited": limited } });
    put(&world, GROUP, PRIORITY_LEVELS, level);
    assert_eq!(classify(), "mine-500");
    put(&world, GROUP, FLOW_SCHEMAS, schema(400));
    assert_eq!(classify(), "mine-400");
    let found = control.classify(&user("dev", &[]), &info("GET", "/api/v1/pods"));
    assert_eq!((found.uid.as_bytes(), found.level_uid.as_bytes()), (&b"u"[..], &b"l"[..]));
    assert_eq!(found.level.nominal(), 300, "half of the shares");
    world.delete(&GroupResource::new(GROUP, PRIORITY_LEVELS), "", "mine");
    assert_eq!(classify(), "catch-all");
}

/// One level of a pool, and requests that come and go.
struct Bench {
    level: Arc<Level>,
    pool: Arc<Pool>,
    simulation: Simulation,
    clock: Clock,
    schema: Schema,
}

fn spec(queuing: Option<(usize, usize, usize)>) -> Spec {
    let queuing = queuing.map(|(queues, hand_size, queue_length)| Queuing { queues, hand_size, queue_length });
    Spec { exempt: false, shares: 1, lendable_percent: 0, borrowing_limit_percent: None, queuing }
}

impl Bench {
    fn new(nominal: usize, queuing: Option<(usize, usize, usize)>) -> Bench {
        let (clock, simulation) = Clock::simulated("2026-01-02T03:04:05Z".parse().expect("a time"));
        let pool = Pool::new(nominal, clock.clone());
        let level = Level::new("l", &pool, clock.clone());
        level.configure(&spec(queuing), Limits { nominal, lower: nominal, upper: nominal });
        pool.set_levels(vec![level.clone()]);
        let source = schema::Source { name: "s".to_owned(), uid: String::new(), spec: json!({}) };
        let schema = Schema::compile(&source, &level, "", None);
        Bench { level, pool, simulation, clock, schema }
    }

    fn ask(&self, flow: u64, seats: usize) -> Admission {
        self.level.admit(&self.schema, flow, seats)
    }
}

fn outcome(admission: &Admission) -> &'static str {
    match admission {
        Admission::Now(_) => "now",
        Admission::Later(_) => "later",
        Admission::Never(rejection) => rejection.as_str(),
    }
}

#[test]
fn a_level_without_queues_turns_away_what_has_no_seat() {
    let bench = Bench::new(3, None);
    let first = bench.ask(1, 2);
    assert_eq!(outcome(&first), "now");
    assert_eq!(outcome(&bench.ask(1, 2)), "concurrency-limit");
    let second = bench.ask(2, 1);
    assert_eq!(outcome(&second), "now");
    drop(first);
    assert_eq!(outcome(&bench.ask(3, 2)), "now");
    drop(second);
    assert_eq!(bench.level.load(), (0, 0));
    assert_eq!(outcome(&bench.ask(1, 9)), "now", "what is wider than the level is handled alone");
}

#[tokio::test]
async fn a_full_queue_turns_away_and_a_seat_goes_to_who_waits() {
    let bench = Bench::new(1, Some((1, 1, 2)));
    let Admission::Now(seat) = bench.ask(1, 1) else { panic!("a free seat") };
    let (second, third) = (bench.ask(1, 1), bench.ask(1, 1));
    assert_eq!((outcome(&second), outcome(&third)), ("later", "later"));
    assert_eq!(outcome(&bench.ask(1, 1)), "queue-full");
    assert_eq!(bench.level.load(), (1, 2));
    drop(seat);
    let Admission::Later(mut second) = second else { unreachable!("it waits") };
    second.turn().await;
    assert_eq!(bench.level.load(), (1, 1));
    // A client that goes away gives back what it was just given, and what it waits for.
    drop(second);
    assert_eq!(bench.level.load(), (1, 0));
    let Admission::Later(third) = third else { unreachable!("it waits") };
    assert!(third.take().is_some());
    assert_eq!(bench.level.load(), (0, 0));
}

#[tokio::test]
async fn who_waits_too_long_is_turned_away() {
    let (control, world) = control(new_cluster());
    let schema = control.classify(&UserInfo::service_account("a", "b"), &info("GET", "/api/v1/pods"));
    let mut held = Vec::new();
    // Its own seats, and what others lend.
    while let Admission::Now(seat) = schema.level.admit(&schema, 1, 1) {
        held.push(seat);
    }
    assert!(held.len() > schema.level.nominal(), "{}", held.len());
    let asked = control.admit(&schema, 1, 1);
    let mut asked = std::pin::pin!(asked);
    let rejection = loop {
        tokio::select! {
            biased;
            outcome = &mut asked => break outcome.err(),
            () = tokio::task::yield_now() => drop(world.simulation.advance_to_next()),
        }
    };
    assert_eq!(rejection, Some(Rejection::TimeOut));
    assert_eq!(schema.counters.waited_in_vain.counts().sum, WAIT_LIMIT.as_secs_f64());
}

/// A flood in one flow, a trickle in another: who is served, in which order.
#[test]
fn a_flood_does_not_drown_a_trickle() {
    let bench = Bench::new(1, Some((64, 4, 50)));
    let Admission::Now(mut seat) = bench.ask(0, 1) else { panic!("a free seat") };
    let mut waiting: Vec<(&str, level::Place)> = Vec::new();
    let ask = |waiting: &mut Vec<(&str, level::Place)>, name, flow| {
        let Admission::Later(place) = bench.ask(flow, 1) else { panic!("the seat is taken") };
        waiting.push((name, place));
    };
    for _ in 0..8 {
        ask(&mut waiting, "flood", 0x9E37_79B9_7F4A_7C15);
    }
    for _ in 0..2 {
        ask(&mut waiting, "trickle", 0xD1B5_4A32_D192_ED03);
    }
    let mut order = String::new();
    for _ in 0..10 {
        bench.simulation.advance(Duration::from_millis(10));
        drop(seat);
        let turn = waiting.iter_mut().position(|(_, place)| place.is_called()).expect("somebody's turn");
        let (name, place) = waiting.remove(turn);
        let _ = write!(order, "{name} ");
        seat = place.take().expect("its seat");
    }
    // The flood has a hand of four queues, the trickle of four others: none of its requests waits for more than a round.
    let served: Vec<&str> = order.trim_end().split(' ').collect();
    let last = served.iter().rposition(|name| *name == "trickle").expect("the trickle");
    assert!(last <= 5, "{order}");
    assert_eq!(bench.level.load(), (1, 0));
    assert!(bench.clock.monotonic() > Duration::ZERO);
}

#[test]
fn seats_that_nobody_uses_are_lent_and_come_back() {
    let bench = Bench::new(10, Some((4, 2, 50)));
    let (clock, pool) = (bench.clock.clone(), bench.pool.clone());
    let other = Level::new("other", &pool, clock);
    bench.level.configure(&spec(Some((4, 2, 50))), Limits { nominal: 4, lower: 4, upper: 7 });
    other.configure(&spec(None), Limits { nominal: 6, lower: 4, upper: 10 });
    pool.set_levels(vec![bench.level.clone(), other.clone()]);
    let source = schema::Source { name: "o".to_owned(), uid: String::new(), spec: json!({}) };
    let others = Schema::compile(&source, &other, "", None);
    let mut mine: Vec<Admission> = (0..6).map(|_| bench.ask(1, 1)).collect();
    assert!(mine.iter().all(|admission| outcome(admission) == "now"), "two of the other's six are lent");
    mine.push(bench.ask(1, 1));
    assert_eq!(outcome(&mine[6]), "later", "four are kept");
    // The lender has what is its own at once.
    let theirs: Vec<Admission> = (0..6).map(|_| other.admit(&others, 1, 1)).collect();
    assert!(theirs.iter().all(|admission| outcome(admission) == "now"));
    assert_eq!(outcome(&other.admit(&others, 1, 1)), "concurrency-limit", "nothing is left to borrow");
    drop(mine.remove(0));
    assert_eq!(bench.level.load(), (5, 1), "what was borrowed is not borrowed again while it is wanted");
    drop(theirs);
    assert_eq!(bench.level.load(), (6, 0), "who waits borrows what becomes free");
}

#[test]
fn hands_are_all_different_and_all_of_the_deck() {
    let queuing = Queuing { queues: 16, hand_size: 4, queue_length: 1 };
    let mut dealt = [0; 16];
    for flow in 0..4_000_u64 {
        let mut hand = level::deal(flow.wrapping_mul(0x9E37_79B9_7F4A_7C15), queuing)[..4].to_vec();
        hand.dedup();
        assert_eq!(hand.len(), 4, "{flow}");
        hand.iter().for_each(|queue| dealt[*queue] += 1);
    }
    assert!(dealt.iter().all(|count| (800..1_200).contains(count)), "{dealt:?}");
}

#[tokio::test]
async fn a_long_list_takes_more_seats() {
    let (control, world) = control(new_cluster());
    for at in 0..450 {
        put(&world, "", "pods", json!({ "metadata": { "namespace": "a", "name": format!("p{at}") } }));
    }
    let seats = |path: &str| {
        let (info, query) = (info("GET", path), Query::parse(path.split_once('?').map_or("", |(_, query)| query)));
        control.seats(&control.classify(&user("dev", &[]), &info), &info, &query)
    };
    assert_eq!(seats("/api/v1/pods"), 5);
    assert_eq!(seats("/api/v1/namespaces/a/pods/p1"), 1);
    assert_eq!(seats("/api/v1/pods?watch=true"), 1);
    assert_eq!(seats("/api/v1/pods?watch=true&sendInitialEvents=true"), 5);
    assert_eq!(seats("/api/v1/services"), 1);
}
