//! Informers and recorders against a scripted API server.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use minik8s_client::leader::Outcome;
use minik8s_client::{Client, Event, EventRecorder, EventType, Informer, LeaderElector, ListOptions, object_reference};
use minik8s_clock::{Clock, Random};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

type Reply = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// Answers requests from a script and remembers what was asked; hangs when the script is over.
#[derive(Clone, Default)]
struct Server {
    script: Arc<Mutex<VecDeque<(u16, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn client(&self) -> (Client, tokio::runtime::Runtime) {
        let (clock, simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .on_thread_park(move || {
                simulation.advance_to_next();
            })
            .build()
            .unwrap();
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let line = format!("{} {}", request.method(), request.uri());
                let body = request.into_body().collect_bytes().await.unwrap();
                server.asked.lock().push(format!("{line} {}", String::from_utf8_lossy(&body)).trim().to_owned());
                let next = server.script.lock().pop_front();
                let Some((code, body)) = next else {
                    return futures::future::pending().await;
                };
                let body: Reply = Full::new(Bytes::from(body)).boxed_unsync();
                Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        let _guard = runtime.enter();
        (Client::over(service, "test/v1", clock, Random::seeded(1)), runtime)
    }
}

fn pod(name: &str, version: u32) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"namespace":"ns","name":"{name}","uid":"u-{name}","resourceVersion":"{version}"}}}}"#
    )
}

fn list(version: u32, items: &[String]) -> (u16, String) {
    (200, format!(r#"{{"kind":"PodList","metadata":{{"resourceVersion":"{version}"}},"items":[{}]}}"#, items.join(",")))
}

fn events(lines: &[(&str, String)]) -> (u16, String) {
    let lines = lines.iter().map(|(kind, object)| format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"));
    (200, lines.collect())
}

#[test]
fn an_expired_watch_loses_nothing() {
    let server = Server::default();
    server.script.lock().extend([
        list(5, &[pod("a", 3), pod("b", 4)]),
        events(&[("MODIFIED", pod("a", 6)), ("ADDED", pod("c", 7))]),
        (410, r#"{"kind":"Status","message":"too old resource version: 7 (20)","reason":"Expired","code":410}"#.into()),
        list(30, &[pod("c", 25), pod("d", 26)]),
    ]);
    let (client, runtime) = server.client();
    let seen = Arc::new(Mutex::new(Vec::new()));
    runtime.block_on(async {
        let informer: Informer<Pod> = Informer::new(client.clone(), "/api/v1/pods", ListOptions::default());
        informer.add_index("by-uid", |pod| pod.metadata.uid.clone().into_iter().collect());
        let log = seen.clone();
        informer.on_event(move |event| {
            let name = event.object().metadata.name.clone().unwrap();
            log.lock().push(match event {
                Event::Added(_) => format!("+{name}"),
                Event::Updated { .. } => format!("~{name}"),
                Event::Deleted(_) => format!("-{name}"),
            });
        });
        let cancel = CancellationToken::new();
        informer.start(cancel.clone());
        client.clock().sleep(std::time::Duration::from_secs(60)).await;
        cancel.cancel();
        let names: Vec<_> = informer.lister().list().iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["c", "d"]);
        assert_eq!(informer.lister().by_index("by-uid", "u-d").len(), 1);
        assert!(informer.lister().by_index("by-uid", "u-a").is_empty(), "the index forgot");
    });
    assert_eq!(*seen.lock(), ["+a", "+b", "~a", "+c", "-a", "-b", "~c", "+d"]);
    let asked = server.asked.lock();
    assert!(asked[1].contains("resourceVersion=5&"), "the watch starts where the list ended: {}", asked[1]);
    assert!(asked[2].contains("resourceVersion=7&"), "and goes on where it stood: {}", asked[2]);
}

#[test]
fn an_empty_list_of_metadata_may_be_null() {
    let server = Server::default();
    let list = r#"{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"5"},"items":null}"#;
    server.script.lock().push_back((200, list.to_owned()));
    let (client, runtime) = server.client();
    runtime.block_on(async {
        let informer = Informer::metadata(client, "/apis/apps/v1/deployments");
        informer.start(CancellationToken::new());
        informer.wait_synced().await;
        assert!(informer.lister().list().is_empty());
    });
}

#[test]
fn a_leader_whom_nobody_answers_gives_up_in_time() {
    let server = Server::default();
    let lease = r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"l"}}"#;
    let missing = r#"{"kind":"Status","message":"not there","reason":"NotFound","code":404}"#;
    server.script.lock().extend([(404, missing.to_owned()), (201, lease.to_owned())]);
    let (client, runtime) = server.client();
    runtime.block_on(async {
        let clock = client.clock().clone();
        let elector = LeaderElector::new(client, "kube-system", "l", "me");
        let leading = |term: CancellationToken| async move { term.cancelled().await };
        let began = clock.monotonic();
        assert_eq!(elector.run(CancellationToken::new(), leading).await, Outcome::Lost);
        // Ten seconds without an answer, and as many for giving the lease back.
        assert_eq!((clock.monotonic() - began).as_secs(), 20);
    });
    assert!(server.asked.lock()[1].contains("\"holderIdentity\":\"me\""));
}

#[test]
fn a_candidate_waits_and_is_told_to_end() {
    let server = Server::default();
    let held = r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"l"},
        "spec":{"holderIdentity":"other","leaseDurationSeconds":3600,"renewTime":"2026-01-01T00:00:00.000000Z"}}"#;
    server.script.lock().extend((0..3).map(|_| (200, held.to_owned())));
    let (client, runtime) = server.client();
    runtime.block_on(async {
        let (clock, cancel) = (client.clock().clone(), CancellationToken::new());
        let elector = LeaderElector::new(client, "kube-system", "l", "me");
        let never = |_: CancellationToken| async { panic!("the lease is somebody else's") };
        let waiting = elector.run(cancel.clone(), never);
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("it waits"),
            () = clock.sleep(std::time::Duration::from_secs(60)) => cancel.cancel(),
        }
        assert_eq!(waiting.await, Outcome::Cancelled);
    });
}

#[test]
fn a_line_that_never_ends_is_given_up_and_the_watch_goes_on() {
    let server = Server::default();
    server.script.lock().extend([
        list(5, &[pod("a", 3)]),
        // More than `MAX_WATCH_LINE_BYTES`.
        (200, "x".repeat(9 << 20)),
        events(&[("ADDED", pod("b", 6))]),
    ]);
    let (client, runtime) = server.client();
    runtime.block_on(async {
        let informer: Informer<Pod> = Informer::new(client.clone(), "/api/v1/pods", ListOptions::default());
        let cancel = CancellationToken::new();
        informer.start(cancel.clone());
        client.clock().sleep(std::time::Duration::from_secs(60)).await;
        cancel.cancel();
        let names: Vec<_> = informer.lister().list().iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["a", "b"]);
    });
    let asked = server.asked.lock();
    assert!(asked[2].contains("watch=") && asked[2].contains("resourceVersion=5&"), "{}", asked[2]);
}

#[test]
fn events_beyond_the_queue_are_dropped_and_the_recorder_goes_on() {
    /// `QUEUE_EVENTS` of `events.rs`.
    const QUEUE: usize = 1000;
    let server = Server::default();
    let written = (201, r#"{"metadata":{},"involvedObject":{}}"#.to_owned());
    server.script.lock().extend(std::iter::repeat_n(written, 2 * QUEUE));
    let (client, runtime) = server.client();
    runtime.block_on(async {
        let recorder = EventRecorder::new(client.clone(), "kubelet", Some("node-1"));
        let record = |name: String| {
            let pod: Pod = serde_json::from_str(&pod(&name, 3)).unwrap();
            recorder.event(&object_reference(&pod), EventType::Normal, "Pulled", "Pulled image");
        };
        // Nothing is awaited, so nothing is sent meanwhile.
        (0..QUEUE + 500).for_each(|number| record(format!("p{number}")));
        client.clock().sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(server.asked.lock().len(), QUEUE);
        record("late".to_owned());
        client.clock().sleep(std::time::Duration::from_secs(1)).await;
    });
    assert!(server.asked.lock()[QUEUE].contains("late"));
}

#[test]
fn a_repeated_event_counts_and_similar_ones_are_combined() {
    let server = Server::default();
    server.script.lock().extend((0..40).map(|_| (201, r#"{"metadata":{},"involvedObject":{}}"#.to_owned())));
    let (client, runtime) = server.client();
    runtime.block_on(async {
        let recorder = EventRecorder::new(client.clone(), "kubelet", Some("node-1"));
        let pod: Pod = serde_json::from_str(&pod("a", 3)).unwrap();
        let about = object_reference(&pod);
        for _ in 0..3 {
            recorder.event(&about, EventType::Warning, "BackOff", "Back-off restarting failed container");
        }
        for n in 0..15 {
            recorder.event(&about, EventType::Normal, "Pulling", format!("Pulling image {n}"));
        }
        client.clock().sleep(std::time::Duration::from_secs(1)).await;
    });
    let asked = server.asked.lock();
    assert!(asked[0].starts_with("POST") && asked[0].contains(r#""count":1"#), "{}", asked[0]);
    assert!(asked[2].starts_with("PATCH") && asked[2].contains(r#""count":3"#), "{}", asked[2]);
    let combined = asked.iter().filter(|line| line.contains("(combined from similar events): ")).count();
    assert_eq!(combined, 6, "from the tenth on");
    let created = asked.iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!(created, 1 + 9 + 1);
}
