"""Drives a running cluster with the Python client: what scripts, notebooks and Ansible modules are made of.

tests/tests/e2e_python.rs starts the cluster and runs this with KUBECONFIG set, in a virtual environment that holds
what requirements.txt names.
"""

import json
import pathlib
import time
import unittest

import websocket
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException, ConflictException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.stream import stream

# How long something may take to come true, and how often to look.
DEADLINE_SECONDS = 60
LOOK_EVERY_SECONDS = 0.05
EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def until(what, check):
    """Looks again and again until check answers something true, and answers that."""
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(LOOK_EVERY_SECONDS)
    raise AssertionError(f"{what}: not within {DEADLINE_SECONDS} s")


def config_map(name, data=None, labels=None):
    """A ConfigMap as the typed client wants it."""
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)


class PythonClient(unittest.TestCase):
    """One namespace for each test."""

    @classmethod
    def setUpClass(cls):
        config.load_kube_config()
        cls.core = client.CoreV1Api()
        cls.apps = client.AppsV1Api()
        cls.batch = client.BatchV1Api()
        cls.rbac = client.RbacAuthorizationV1Api()

    def setUp(self):
        made = self.core.create_namespace({"metadata": {"generateName": "python-"}})
        self.namespace = made.metadata.name
        self.addCleanup(self.core.delete_namespace, self.namespace)
        until("the default ServiceAccount", lambda: self.core.list_namespaced_service_account(self.namespace).items)

    def refused(self, status, call, *arguments, **options):
        """The error of a call that must fail with this status."""
        with self.assertRaises(ApiException) as raised:
            call(*arguments, **options)
        self.assertEqual(raised.exception.status, status, raised.exception)
        return raised.exception

    def test_deployment(self):
        """Create, read, patch in each type, replace, scale, delete."""
        labels = {"app": "web"}
        container = client.V1Container(
            name="web",
            image="nginx:1.27",
            ports=[client.V1ContainerPort(container_port=80)],
            resources=client.V1ResourceRequirements(requests={"cpu": "50m", "memory": "64Mi"}),
        )
        deployment = client.V1Deployment(
            metadata=client.V1ObjectMeta(name="web", labels=labels),
            spec=client.V1DeploymentSpec(
                replicas=2,
                selector=client.V1LabelSelector(match_labels=labels),
                template=client.V1PodTemplateSpec(
                    metadata=client.V1ObjectMeta(labels=labels),
                    spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=1),
                ),
            ),
        )
        made = self.apps.create_namespaced_deployment(self.namespace, deployment)
        self.assertEqual(made.spec.strategy.rolling_update.max_surge, "25%")
        self.assertEqual(made.spec.template.spec.containers[0].image_pull_policy, "IfNotPresent")
        self.refused(409, self.apps.create_namespaced_deployment, self.namespace, deployment)

        def available(count):
            def look():
                now = self.apps.read_namespaced_deployment_status("web", self.namespace)
                caught_up = now.status.observed_generation == now.metadata.generation
                return caught_up and now.status.available_replicas == count and now

            return until(f"{count} replicas", look)

        available(2)
        patched = self.apps.patch_namespaced_deployment("web", self.namespace, {"spec": {"replicas": 3}})
        self.assertEqual(patched.spec.replicas, 3)
        self.assertEqual(len(patched.spec.template.spec.containers), 1)
        available(3)
        operations = [{"op": "add", "path": "/metadata/labels/tier", "value": "front"}]
        patched = self.apps.patch_namespaced_deployment("web", self.namespace, operations)
        self.assertEqual(patched.metadata.labels["tier"], "front")
        self.apps.patch_namespaced_deployment_scale("web", self.namespace, {"spec": {"replicas": 1}})
        stale = available(1)

        def updated():
            now = self.apps.read_namespaced_deployment("web", self.namespace)
            now.spec.template.spec.containers[0].image = "nginx:1.28"
            try:
                return self.apps.replace_namespaced_deployment("web", self.namespace, now)
            except ConflictException:
                # The controller has written the status meanwhile: as anyone, read again.
                return None

        until("the image is updated", updated)
        error = self.refused(409, self.apps.replace_namespaced_deployment, "web", self.namespace, stale)
        self.assertIn("the object has been modified", error.body)
        available(1)
        self.apps.delete_namespaced_deployment("web", self.namespace, propagation_policy="Foreground")
        until("the Pods are gone", lambda: not self.core.list_namespaced_pod(self.namespace).items)

    def test_several_kinds(self):
        """Secret, Service, Job, CronJob, Role, StatefulSet: each is made, listed and deleted."""
        secret = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"key": "value"})
        self.assertEqual(self.core.create_namespaced_secret(self.namespace, secret).data, {"key": "dmFsdWU="})
        port = client.V1ServicePort(port=80, target_port="http")
        service = client.V1Service(
            metadata=client.V1ObjectMeta(name="svc"),
            spec=client.V1ServiceSpec(selector={"app": "web"}, ports=[port]),
        )
        self.assertTrue(self.core.create_namespaced_service(self.namespace, service).spec.cluster_ip)
        template = {
            "metadata": {"labels": {"app": "job"}},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "busybox:1.36", "command": ["sh", "-c", "echo done"]}],
            },
        }
        job = {"metadata": {"name": "job"}, "spec": {"template": template}}
        self.batch.create_namespaced_job(self.namespace, job)
        done = lambda: self.batch.read_namespaced_job_status("job", self.namespace).status.succeeded == 1
        until("the Job succeeds", done)
        [pod] = self.core.list_namespaced_pod(self.namespace, label_selector="job-name=job").items
        self.assertEqual(self.core.read_namespaced_pod_log(pod.metadata.name, self.namespace), "done\n")
        cron = {"metadata": {"name": "cron"}, "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": template}}}}
        self.batch.create_namespaced_cron_job(self.namespace, cron)
        bad = {**cron, "metadata": {"name": "bad"}, "spec": {**cron["spec"], "schedule": "never"}}
        self.refused(422, self.batch.create_namespaced_cron_job, self.namespace, bad)
        rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
        self.rbac.create_namespaced_role(self.namespace, {"metadata": {"name": "reader"}, "rules": [rule]})
        self.assertEqual([role.metadata.name for role in self.rbac.list_namespaced_role(self.namespace).items], ["reader"])
        self.batch.delete_namespaced_job("job", self.namespace, body=client.V1DeleteOptions(propagation_policy="Background"))
        until("the Job's Pod is gone", lambda: not self.core.list_namespaced_pod(self.namespace).items)
        self.refused(404, self.core.read_namespaced_secret, "absent", self.namespace)

    def test_watch(self):
        """A watch shows each change, ends at its timeout, and goes on where a list ended."""
        self.core.create_namespaced_config_map(self.namespace, config_map("a", labels={"w": "1"}))
        listed = self.core.list_namespaced_config_map(self.namespace, label_selector="w=1")
        self.core.patch_namespaced_config_map("a", self.namespace, {"data": {"k": "v"}})
        self.core.create_namespaced_config_map(self.namespace, config_map("b", labels={"w": "1"}))
        self.core.delete_namespaced_config_map("a", self.namespace)
        watcher, seen = watch.Watch(), []
        options = {"label_selector": "w=1", "resource_version": listed.metadata.resource_version}
        for event in watcher.stream(self.core.list_namespaced_config_map, self.namespace, timeout_seconds=30, **options):
            seen.append((event["type"], event["object"].metadata.name))
            if len(seen) == 3:
                watcher.stop()
        self.assertEqual(seen, [("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")])
        first = [
            event["type"]
            for event in watch.Watch().stream(self.core.list_namespaced_config_map, self.namespace, timeout_seconds=1)
        ]
        self.assertIn("ADDED", first)

    def test_pages_and_resource_versions(self):
        """limit and continue, exact versions, and 410 for what is not kept."""
        for at in range(5):
            self.core.create_namespaced_config_map(self.namespace, config_map(f"m-{at}", {"at": str(at)}, {"page": "yes"}))
        listing = {"label_selector": "page=yes", "limit": 2}
        page = self.core.list_namespaced_config_map(self.namespace, **listing)
        names, version = [item.metadata.name for item in page.items], page.metadata.resource_version
        # What is made meanwhile does not show on later pages of the same list.
        self.core.create_namespaced_config_map(self.namespace, config_map("m-9", labels={"page": "yes"}))
        while page.metadata._continue:
            page = self.core.list_namespaced_config_map(self.namespace, _continue=page.metadata._continue, **listing)
            self.assertEqual(page.metadata.resource_version, version)
            names += [item.metadata.name for item in page.items]
        self.assertEqual(names, [f"m-{at}" for at in range(5)])
        exact = {"label_selector": "page=yes", "resource_version": version, "resource_version_match": "Exact"}
        self.assertEqual(len(self.core.list_namespaced_config_map(self.namespace, **exact).items), 5)
        newer = {"resource_version": version, "resource_version_match": "NotOlderThan"}
        self.assertGreaterEqual(len(self.core.list_namespaced_config_map(self.namespace, **newer).items), 6)
        cached = self.core.list_namespaced_config_map(self.namespace, resource_version="0")
        self.assertGreater(int(cached.metadata.resource_version), 0)
        self.refused(422, self.core.list_namespaced_config_map, self.namespace, resource_version_match="Exact")
        self.refused(400, self.core.list_namespaced_config_map, self.namespace, _continue="no-token", limit=2)
        far = str(int(cached.metadata.resource_version) + 1_000_000)
        error = self.refused(504, self.core.list_namespaced_config_map, self.namespace, resource_version=far)
        self.assertIn("Too large resource version", error.body)

    def test_expired_watch(self):
        """A watch from before what the server remembers is answered with 410, as an event or at once."""
        with self.assertRaises(ApiException) as raised:
            for event in watch.Watch().stream(self.core.list_namespace, resource_version="1", timeout_seconds=5):
                self.fail(f"an event from before the server's time: {event}")
        self.assertEqual(raised.exception.status, 410, raised.exception)
        self.assertIn("too old resource version", str(raised.exception))

    def test_exec_and_logs(self):
        """Exec over a WebSocket, one-shot and interactive; a log followed line by line."""
        command = ["sh", "-c", "for i in 1 2 3; do echo line $i; done; sleep 3600"]
        container = client.V1Container(name="main", image="busybox:1.36", command=command)
        spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=1)
        pod = client.V1Pod(metadata=client.V1ObjectMeta(name="talker"), spec=spec)
        self.core.create_namespaced_pod(self.namespace, pod)
        phase = lambda: self.core.read_namespaced_pod_status("talker", self.namespace).status.phase
        until("the Pod runs", lambda: phase() == "Running")

        # A client of its own: stream() swaps the request method of the one it is given.
        core = client.CoreV1Api(client.ApiClient())
        connect, where = core.connect_get_namespaced_pod_exec, ("talker", self.namespace)
        self.assertEqual(stream(connect, *where, command=["echo", "hi"], stdout=True, stderr=True).strip(), "hi")
        shell = stream(connect, *where, command=["cat"], stdin=True, stdout=True, stderr=True, _preload_content=False)
        shell.write_stdin("typed\n")
        self.assertEqual(shell.readline_stdout(timeout=DEADLINE_SECONDS), "typed")
        shell.close()
        failing = stream(
            connect, *where, command=["sh", "-c", "echo bad >&2; exit 5"], stdout=True, stderr=True, _preload_content=False
        )
        failing.run_forever(timeout=DEADLINE_SECONDS)
        self.assertEqual((failing.read_stderr(), failing.returncode), ("bad\n", 5))

        lines = []
        following = watch.Watch()
        for line in following.stream(self.core.read_namespaced_pod_log, "talker", self.namespace):
            lines.append(line)
            if len(lines) == 3:
                following.stop()
        self.assertEqual(lines, ["line 1", "line 2", "line 3"])
        tail = self.core.read_namespaced_pod_log("talker", self.namespace, tail_lines=1, timestamps=True)
        self.assertRegex(tail, r"^\d{4}-\d\d-\d\dT\S+Z line 3\n$")

    def test_create_from_yaml(self):
        """What `kubectl create -f` would make of the examples."""
        api = client.ApiClient()
        for name in ("deployment.yaml", "service.yaml"):
            utils.create_from_yaml(api, str(EXAMPLES / "web" / name), namespace=self.namespace)
        look = lambda: self.apps.read_namespaced_deployment_status("web", self.namespace).status.ready_replicas == 3
        until("the example is up", look)
        with self.assertRaises(utils.FailToCreateError) as raised:
            utils.create_from_yaml(api, str(EXAMPLES / "web" / "deployment.yaml"), namespace=self.namespace)
        self.assertIn("AlreadyExists", str(raised.exception))

    def test_dynamic_client(self):
        """Kinds found by discovery: create, get, patch, server-side apply, watch, delete."""
        found = dynamic.DynamicClient(client.ApiClient())
        self.assertEqual(found.resources.get(api_version="apps/v1", kind="Deployment").name, "deployments")
        maps = found.resources.get(api_version="v1", kind="ConfigMap")
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dyn"}, "data": {"a": "1"}}
        made = maps.create(body=body, namespace=self.namespace)
        self.assertEqual(made.data.a, "1")
        with self.assertRaises(ConflictError):
            maps.create(body=body, namespace=self.namespace)
        patch = {"metadata": {"name": "dyn"}, "data": {"a": None, "b": "2"}}
        patched = maps.patch(body=patch, namespace=self.namespace, content_type="application/merge-patch+json")
        self.assertEqual(patched.data.to_dict(), {"b": "2"})
        applied = maps.server_side_apply(
            body={**body, "data": {"c": "3"}}, namespace=self.namespace, name="dyn", field_manager="python"
        )
        self.assertEqual(applied.data.to_dict(), {"b": "2", "c": "3"})
        with self.assertRaises(ConflictError) as raised:
            maps.server_side_apply(
                body={**body, "data": {"b": "9"}}, namespace=self.namespace, name="dyn", field_manager="other"
            )
        self.assertIn(".data.b", str(raised.exception))
        for event in maps.watch(namespace=self.namespace, name="dyn", timeout=DEADLINE_SECONDS):
            self.assertEqual((event["type"], event["object"].metadata.name), ("ADDED", "dyn"))
            break
        maps.delete(name="dyn", namespace=self.namespace)
        with self.assertRaises(NotFoundError):
            maps.get(name="dyn", namespace=self.namespace)

    def test_watches_and_logs_come_over_websockets(self):
        socket = self.websocket("configmaps?watch=true&labelSelector=told%3Dyes")
        self.core.create_namespaced_config_map(self.namespace, config_map("told", labels={"told": "yes"}))
        event = json.loads(socket.recv())
        self.assertEqual((event["type"], event["object"]["metadata"]["name"]), ("ADDED", "told"))
        socket.close()

        container = client.V1Container(name="c", image="busybox:1.37", command=["echo", "hello"])
        spec = client.V1PodSpec(containers=[container], restart_policy="Never")
        pod = client.V1Pod(metadata=client.V1ObjectMeta(name="says"), spec=spec)
        self.core.create_namespaced_pod(self.namespace, pod)
        ended = lambda: self.core.read_namespaced_pod("says", self.namespace).status.phase == "Succeeded"
        until("the pod has said it", ended)
        socket = self.websocket("pods/says/log?container=c", ["binary.k8s.io"])
        frames = []
        while True:
            opcode, data = socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                break
            frames.append(data)
        self.assertEqual((frames[0], b"".join(frames)), (b"", b"hello\n"))

    def websocket(self, path, protocols=None):
        """A connection as a browser makes it."""
        there = client.Configuration.get_default_copy()
        url = there.host.replace("https", "wss", 1) + f"/api/v1/namespaces/{self.namespace}/{path}"
        tls = {"ca_certs": there.ssl_ca_cert, "certfile": there.cert_file, "keyfile": there.key_file}
        return websocket.create_connection(url, sslopt=tls, subprotocols=protocols, timeout=DEADLINE_SECONDS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
