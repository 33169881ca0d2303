//! The `kube` crate against a cluster, from outside and over TLS: what controllers in Rust are made of.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{
    Api, AttachParams, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::{Discovery, Scope};
use kube::runtime::wait::{Condition, await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, ResourceExt};
use minik8s_clock::Clock;
use minik8s_tests::Cluster;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long something may take to come true.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a test works with: a client, and a namespace of its own.
struct Fixture {
    client: Client,
    namespace: String,
    clock: Clock,
}

impl Fixture {
    async fn new(kubeconfig: &std::path::Path, name: &str) -> Self {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("a config")).expect("a client");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace: Namespace = from(json!({"metadata": {"name": name}}));
        namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace");
        let fixture = Self { client, namespace: name.to_owned(), clock: Clock::real() };
        let exists = |account: Option<&ServiceAccount>| account.is_some();
        fixture.until::<ServiceAccount>("default", exists).await;
        fixture
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits, by watching, until the object is as it should be.
    async fn until<K>(&self, name: &str, condition: impl Condition<K>) -> Option<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned + Send + 'static,
    {
        self.soon(name, await_condition(self.api::<K>(), name, condition)).await.expect("a watch")
    }

    async fn soon<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let outcome = self.clock.timeout(DEADLINE, future).await;
        outcome.unwrap_or_else(|_| panic!("{what}: not within {} s", DEADLINE.as_secs()))
    }
}

fn from<K: DeserializeOwned>(value: serde_json::Value) -> K {
    serde_json::from_value(value).expect("an object of this kind")
}

fn config_map(name: &str, data: impl Serialize) -> ConfigMap {
    from(json!({"metadata": {"name": name, "labels": {"made": "here"}}, "data": data}))
}

fn status_code<T: Debug>(result: kube::Result<T>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("the API server should have refused: {other:?}"),
    }
}

/// All tests on one cluster, at once.
#[test]
fn the_kube_crate_works() {
    let cluster = Cluster::start(&["--nodes", "3"]);
    let kubeconfig = cluster.kubeconfig();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        futures::join!(
            async { crud(Fixture::new(kubeconfig, "crud").await).await },
            async { apply(Fixture::new(kubeconfig, "apply").await).await },
            async { watching(Fixture::new(kubeconfig, "watching").await).await },
            async { streams(Fixture::new(kubeconfig, "streams").await).await },
            async { discovery(Fixture::new(kubeconfig, "discovery").await).await },
        );
    });
}

/// Create, get, list in pages, replace, patch, delete; and what is refused.
async fn crud(fixture: Fixture) {
    let maps = fixture.api::<ConfigMap>();
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &config_map(name, json!({"k": "v"}))).await.expect("a ConfigMap");
    }
    assert_eq!(status_code(maps.create(&PostParams::default(), &config_map("a", json!({}))).await), 409);
    assert_eq!(status_code(maps.get("absent").await), 404);
    assert!(maps.get_opt("absent").await.expect("an answer").is_none());
    let mut parameters = ListParams::default().labels("made=here").limit(2);
    let page = maps.list(&parameters).await.expect("a page");
    let token = page.metadata.continue_.clone().expect("a token to go on with");
    assert_eq!(
        (page.items.len(), page.metadata.remaining_item_count),
        (2, None),
        "a selector leaves the rest uncounted"
    );
    parameters = parameters.continue_token(&token);
    let rest = maps.list(&parameters).await.expect("the second page");
    assert_eq!((rest.items[0].name_any(), rest.metadata.continue_), ("c".to_owned(), None));

    let mut map = maps.get("a").await.expect("a");
    map.data = Some(BTreeMap::from([("k".to_owned(), "w".to_owned())]));
    let stale = map.clone();
    maps.replace("a", &PostParams::default(), &map).await.expect("replaced");
    assert_eq!(status_code(maps.replace("a", &PostParams::default(), &stale).await), 409);
    let entry = maps.entry("a").await.expect("an entry").and_modify(|map| map.labels_mut().clear());
    let mut entry = entry.or_insert(|| config_map("a", json!({})));
    entry.commit(&PostParams::default()).await.expect("committed");
    let patch = Patch::Merge(json!({"data": {"k": null, "n": "new"}}));
    let patched = maps.patch("b", &PatchParams::default(), &patch).await.expect("patched");
    assert_eq!(patched.data, Some(BTreeMap::from([("n".to_owned(), "new".to_owned())])));
    let metadata = maps.get_metadata("b").await.expect("its metadata");
    assert_eq!(metadata.uid(), patched.uid());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &config_map("dry", json!({}))).await.expect("a dry run");
    assert!(maps.get_opt("dry").await.expect("an answer").is_none());

    let left = maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("made=here")).await;
    left.expect("a deleted collection");
    assert!(maps.list(&ListParams::default().labels("made=here")).await.expect("a list").items.is_empty());
}

/// Server-side apply, its conflicts, status and scale.
async fn apply(fixture: Fixture) {
    let deployments = fixture.api::<Deployment>();
    let deployment = |replicas: i32| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "nginx:1.27"}]},
                },
            },
        })
    };
    let (ours, theirs) = (PatchParams::apply("ours"), PatchParams::apply("theirs"));
    let applied = deployments.patch("web", &ours, &Patch::Apply(deployment(1))).await.expect("applied");
    assert_eq!(applied.managed_fields()[0].manager.as_deref(), Some("ours"));
    let again = deployments.patch("web", &ours, &Patch::Apply(deployment(1))).await.expect("applied again");
    assert_eq!(again.metadata.generation, Some(1));
    let conflict = deployments.patch("web", &theirs, &Patch::Apply(deployment(2))).await.expect_err("a conflict");
    assert!(conflict.to_string().contains("conflict with \"ours\": .spec.replicas"), "{conflict}");
    deployments.patch("web", &theirs.force(), &Patch::Apply(deployment(2))).await.expect("forced");
    let available = |count| {
        move |deployment: Option<&Deployment>| {
            let status = deployment.and_then(|deployment| deployment.status.as_ref());
            status.and_then(|status| status.available_replicas).unwrap_or(0) == count
        }
    };
    fixture.until::<Deployment>("web", available(2)).await;
    fixture.until::<Deployment>("web", conditions::is_deployment_completed()).await;
    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    let scaled = deployments.patch_scale("web", &PatchParams::default(), &scale).await.expect("scaled");
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas), Some(1));
    fixture.until::<Deployment>("web", available(1)).await;
    let status = deployments.get_status("web").await.expect("its status").status.expect("a status");
    assert_eq!(status.available_replicas, Some(1));
    let uid = applied.uid().expect("a UID");
    deployments.delete("web", &DeleteParams::foreground()).await.expect("deleted");
    fixture.until::<Deployment>("web", conditions::is_deleted(&uid)).await;
    assert!(fixture.api::<Pod>().list(&ListParams::default()).await.expect("a list").items.is_empty());
}

/// A plain watch, a watcher that lists, one that streams its list, and a reflector.
async fn watching(fixture: Fixture) {
    let maps = fixture.api::<ConfigMap>();
    maps.create(&PostParams::default(), &config_map("before", json!({}))).await.expect("a ConfigMap");
    let version =
        maps.list(&ListParams::default()).await.expect("a list").metadata.resource_version.expect("a version");

    let selected = watcher::Config::default().labels("made=here");
    for config in [selected.clone(), selected.clone().streaming_lists()] {
        let (store, writer) = reflector::store();
        let mut stream = watcher(maps.clone(), config).reflect(writer).applied_objects().boxed();
        let first = fixture.soon("the first object", stream.try_next()).await.expect("a watch").expect("an object");
        assert_eq!(first.name_any(), "before");
        maps.create(&PostParams::default(), &config_map("after", json!({}))).await.expect("a ConfigMap");
        let next = fixture.soon("the next object", stream.try_next()).await.expect("a watch").expect("an object");
        assert_eq!(next.name_any(), "after");
        fixture.soon("the store is ready", store.wait_until_ready()).await.expect("a store");
        assert_eq!(store.state().len(), 2);
        maps.delete("after", &DeleteParams::default()).await.expect("deleted");
    }

    let parameters = WatchParams::default().labels("made=here");
    let mut events = maps.watch(&parameters, &version).await.expect("a watch").boxed();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        match fixture.soon("four events", events.try_next()).await.expect("a watch").expect("an event") {
            WatchEvent::Added(map) => seen.push(format!("added {}", map.name_any())),
            WatchEvent::Deleted(map) => seen.push(format!("deleted {}", map.name_any())),
            WatchEvent::Bookmark(_) => {}
            other => panic!("nothing else has happened: {other:?}"),
        }
    }
    assert_eq!(seen, ["added after", "deleted after", "added after", "deleted after"]);
}

/// Exec with standard input and an exit code, logs whole and followed.
async fn streams(fixture: Fixture) {
    let pods = fixture.api::<Pod>();
    let script = "echo one; echo two; sleep 3600";
    let pod: Pod = from(json!({
        "metadata": {"name": "talker"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "busybox:1.36", "command": ["sh", "-c", script]}],
        },
    }));
    pods.create(&PostParams::default(), &pod).await.expect("a Pod");
    fixture.until::<Pod>("talker", conditions::is_pod_running()).await;

    let mut attached =
        pods.exec("talker", ["cat"], &AttachParams::default().stdin(true).stderr(false)).await.expect("exec");
    let mut stdin = attached.stdin().expect("standard input");
    let mut stdout = attached.stdout().expect("standard output");
    stdin.write_all(b"typed\n").await.expect("written");
    let mut echoed = [0; 6];
    fixture.soon("an echo", stdout.read_exact(&mut echoed)).await.expect("read");
    assert_eq!(&echoed, b"typed\n");
    attached.abort();

    let mut failing = pods.exec("talker", ["sh", "-c", "exit 4"], &AttachParams::default()).await.expect("exec");
    let status = fixture.soon("a status", failing.take_status().expect("a status to come")).await.expect("a status");
    let causes = status.details.and_then(|details| details.causes).expect("causes");
    assert_eq!((causes[0].reason.as_deref(), causes[0].message.as_deref()), (Some("ExitCode"), Some("4")));

    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut lines = pods.log_stream("talker", &follow).await.expect("a log").lines();
    for expected in ["one", "two"] {
        let line = fixture.soon("a line", lines.try_next()).await.expect("read").expect("a line");
        assert_eq!(line, expected);
    }
    let tail = LogParams { tail_lines: Some(1), ..LogParams::default() };
    assert_eq!(pods.logs("talker", &tail).await.expect("a log"), "two\n");
    pods.evict("talker", &kube::api::EvictParams::default()).await.expect("evicted");
    fixture.until::<Pod>("talker", |pod: Option<&Pod>| pod.is_none()).await;
}

/// Kinds found by discovery, plain and aggregated, and objects without a type.
async fn discovery(fixture: Fixture) {
    let version = fixture.client.apiserver_version().await.expect("a version");
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "37"));
    let plain = Discovery::new(fixture.client.clone()).run().await.expect("discovery");
    let aggregated = Discovery::new(fixture.client.clone()).run_aggregated().await.expect("aggregated discovery");
    let kinds = |discovery: &Discovery| {
        let groups = discovery.groups().flat_map(|group| group.recommended_resources());
        groups.map(|(resource, _)| format!("{}/{}", resource.api_version, resource.kind)).collect::<Vec<_>>()
    };
    let (plain_kinds, aggregated_kinds) = (kinds(&plain), kinds(&aggregated));
    assert!(plain_kinds.len() > 40, "{plain_kinds:?}");
    for kind in &plain_kinds {
        assert!(aggregated_kinds.contains(kind), "{kind} is not in aggregated discovery");
    }
    let apps = plain.get("apps").expect("the group apps");
    let (resource, capabilities) = apps.recommended_kind("Deployment").expect("Deployments");
    assert_eq!((resource.plural.as_str(), capabilities.scope), ("deployments", Scope::Namespaced));
    let dynamic: Api<DynamicObject> = Api::namespaced_with(fixture.client.clone(), &fixture.namespace, &resource);
    assert!(dynamic.list(&ListParams::default()).await.expect("a list").items.is_empty());
}
