//! What a resize asks for, as pure functions: which containers are told what, and which are restarted.
//!
//! (kubelet: `kuberuntime_manager.go`, `computePodResizeAction`, `IsPodResizeInProgress`; `events/resize.go`.)

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::Serialize;

use crate::allocation::{CpuMemory, PodResources};
use crate::runtime::{RuntimePod, RuntimeState};
use crate::spec::PodExt as _;

/// A running container that gets other resources.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerUpdate {
    /// The runtime's name of it.
    pub id: String,
    /// Its name in the pod.
    pub name: String,
    /// What it has.
    pub from: CpuMemory,
    /// What it gets.
    pub to: CpuMemory,
}

/// A resize of a pod in place. Memory comes before processors, what shrinks before what grows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resizing {
    /// Containers that get another amount of memory.
    pub memory: Vec<ContainerUpdate>,
    /// Containers that get another amount of processor time, after their memory has changed.
    pub cpu: Vec<ContainerUpdate>,
    /// Whether the resources of the pod as a whole change without that: by themselves, or because a container starts
    /// with other resources than it had.
    pub pod: bool,
}

impl Resizing {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.cpu.is_empty() && !self.pod
    }

    /// Takes in a running container that has `current` and should have `desired`. False if its own policy says that it
    /// has to be restarted for that.
    pub fn add(&mut self, container: &Container, id: &str, current: CpuMemory, desired: CpuMemory) -> bool {
        let limits = (current.memory_limit, desired.memory_limit);
        let memory = change(limits, (current.memory_request, desired.memory_request));
        let cpu = change((current.cpu_limit, desired.cpu_limit), (current.cpu_request, desired.cpu_request));
        let restarts = |resource: &str| {
            let mut policies = container.resize_policy.iter().flatten();
            policies.any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
        };
        if (memory.is_some() && restarts("memory")) || (cpu.is_some() && restarts("cpu")) {
            return false;
        }
        let update = |from, to| ContainerUpdate { id: id.to_owned(), name: container.name.clone(), from, to };
        let between = CpuMemory { cpu_request: current.cpu_request, cpu_limit: current.cpu_limit, ..desired };
        for (list, change, from, to) in
            [(&mut self.memory, memory, current, between), (&mut self.cpu, cpu, between, desired)]
        {
            match change {
                Some(Change::Shrinks) => list.insert(0, update(from, to)),
                Some(Change::Grows) => list.push(update(from, to)),
                None => {}
            }
        }
        true
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    Shrinks,
    Grows,
}

/// Which way a resource changes: as its limit does or, if that stays, as its request does. Pairs are (now, then).
fn change(limit: (i64, i64), request: (i64, i64)) -> Option<Change> {
    let differs = |(now, then): &(i64, i64)| now != then;
    let (now, then) = [limit, request].into_iter().find(differs)?;
    Some(if then > now { Change::Grows } else { Change::Shrinks })
}

/// What a container of a pod should have.
pub fn desired(pod: &Pod, container: &Container) -> CpuMemory {
    let own = container.resources.clone().unwrap_or_default();
    CpuMemory::of(&own, pod.spec().resources.as_ref())
}

/// What a container was last told to have; nothing if it never was.
pub fn actuated(actuated: &PodResources, name: &str) -> CpuMemory {
    let known = actuated.containers.get(name);
    known.map(|known| CpuMemory::of(known, actuated.pod.as_ref())).unwrap_or_default()
}

/// Whether the pod as a whole has to be given other resources.
pub fn pod_differs(pod: &Pod, actuated: &PodResources) -> bool {
    let figures =
        |whole: Option<&ResourceRequirements>| whole.map(|whole| CpuMemory::of(whole, None)).unwrap_or_default();
    figures(pod.spec().resources.as_ref()) != figures(actuated.pod.as_ref())
}

/// Whether a running container of a pod does not have yet what is allocated to it.
pub fn is_in_progress(pod: &Pod, runtime: &RuntimePod, known: &PodResources) -> bool {
    let spec = pod.spec();
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let differs = |container: &Container| {
        let running = runtime.latest(&container.name).is_some_and(|last| last.state == RuntimeState::Running);
        running && actuated(known, &container.name) != desired(pod, container)
    };
    containers.any(differs) || (spec.resources.is_some() && pod_differs(pod, known))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Asked<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Asked<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[derive(Serialize)]
struct Asked<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

/// The words of the events of a resize: what has happened, to which resources.
pub fn message(what: &str, pod: &Pod, generation: i64, error: &str) -> String {
    fn asked<'a>(containers: impl Iterator<Item = &'a Container>) -> Vec<Asked<'a>> {
        let asked = containers.map(|c| Asked { name: &c.name, resources: c.resources.clone().unwrap_or_default() });
        asked.collect()
    }
    let spec = pod.spec();
    let init_containers = asked(spec.init_containers.iter().flatten());
    let summary = Summary { init_containers, containers: asked(spec.containers.iter()), generation, error };
    let summary = serde_json::to_string(&summary).expect("a summary has only text and numbers in it");
    format!("Pod resize {what}: {summary}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(value: serde_json::Value) -> Container {
        serde_json::from_value(value).unwrap()
    }

    fn figures(cpu_request: i64, cpu_limit: i64, memory_request: i64, memory_limit: i64) -> CpuMemory {
        CpuMemory { cpu_request, cpu_limit, memory_request, memory_limit }
    }

    #[test]
    fn memory_goes_first_and_what_shrinks_goes_before_what_grows() {
        let mut resizing = Resizing::default();
        for (name, current, desired) in [
            ("grows", figures(10, 20, 100, 200), figures(10, 30, 100, 300)),
            ("shrinks", figures(10, 20, 100, 200), figures(5, 20, 100, 150)),
            ("stays", figures(1, 2, 3, 4), figures(1, 2, 3, 4)),
            ("asks", figures(10, 20, 100, 200), figures(10, 20, 120, 200)),
        ] {
            assert!(resizing.add(&container(json!({"name": name})), "id", current, desired), "{name} goes on");
        }
        let names = |list: &[ContainerUpdate]| list.iter().map(|update| update.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&resizing.memory), ["shrinks", "grows", "asks"]);
        assert_eq!(names(&resizing.cpu), ["shrinks", "grows"]);
        assert_eq!(resizing.memory[1].to, figures(10, 20, 100, 300), "processors come later");
        assert_eq!((resizing.cpu[1].from, resizing.cpu[1].to), (resizing.memory[1].to, figures(10, 30, 100, 300)));
        assert!(!resizing.pod);
    }

    #[test]
    fn a_policy_restarts_for_its_resource_only() {
        let policy = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}, {"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
        let container = container(json!({"name": "c", "resizePolicy": policy}));
        let current = figures(10, 20, 100, 200);
        let mut resizing = Resizing::default();
        assert!(resizing.add(&container, "id", current, CpuMemory { cpu_limit: 40, ..current }));
        assert_eq!((resizing.cpu.len(), resizing.pod), (1, false));
        let mut resizing = Resizing::default();
        assert!(!resizing.add(&container, "id", current, CpuMemory { memory_request: 150, ..current }));
        assert!(resizing.is_empty(), "it is told when it starts again");
    }

    /// The expected words are those of kubelet's `events/resize_test.go`.
    #[test]
    fn events_say_what_kubernetes_says() {
        let pod = json!({"spec": {
            "initContainers": [{"name": "c0", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}}],
            "containers": [{"name": "c1", "resources": {"requests": {"memory": "100"}, "limits": {"memory": "200"}}}, {"name": "c2"}],
        }});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let resources = r#""initContainers":[{"name":"c0","resources":{"limits":{"cpu":"200m"},"requests":{"cpu":"100m"}}}],"containers":[{"name":"c1","resources":{"limits":{"memory":"200"},"requests":{"memory":"100"}}},{"name":"c2","resources":{}}],"generation":2"#;
        assert_eq!(message("completed", &pod, 2, ""), format!("Pod resize completed: {{{resources}}}"));
        let why = "Node didn't have enough resource: memory";
        assert_eq!(
            message("OutOfmemory", &pod, 2, why),
            format!(r#"Pod resize OutOfmemory: {{{resources},"error":"{why}"}}"#)
        );
    }
}
