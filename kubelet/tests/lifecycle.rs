//! Golden scripts: what is planned for a pod and what its status says, as its containers live and die.
//!
//! The runtime is a model that does at once what a plan says; the scripts decide what containers do then.
//! `UPDATE_GOLDENFILES=1 cargo test -p minik8s-kubelet` writes the answers anew; read the difference before you commit it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use minik8s_kubelet::allocation::{CpuMemory, PodResources};
use minik8s_kubelet::backoff::BackOff;
use minik8s_kubelet::plan::{self, Action, KillReason, Plan};
use minik8s_kubelet::runtime::{RuntimeContainer, RuntimePod, RuntimeSandbox, RuntimeState};
use minik8s_kubelet::spec::{PodExt as _, container_hash};
use minik8s_kubelet::status::{self, Forced, StartFailure};
use minik8s_kubelet::words;
use serde_json::json;

type Answer = Result<String, Box<dyn Error>>;

#[test]
fn scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts");
    let mut scripts: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        goldenscript::run(&mut World::new(), script).unwrap();
    }
}

struct World {
    pod: Pod,
    runtime: RuntimePod,
    backoff: BackOff,
    failures: BTreeMap<String, StartFailure>,
    unhealthy: BTreeMap<String, KillReason>,
    starting: BTreeSet<String>,
    unready: BTreeSet<String>,
    old: PodStatus,
    forced: Option<Forced>,
    terminating: bool,
    actuated: PodResources,
    resized: BTreeSet<String>,
    start: Timestamp,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        Self {
            pod: Pod::default(),
            runtime: RuntimePod::default(),
            backoff: BackOff::default(),
            failures: BTreeMap::new(),
            unhealthy: BTreeMap::new(),
            starting: BTreeSet::new(),
            unready: BTreeSet::new(),
            old: PodStatus::default(),
            forced: None,
            terminating: false,
            actuated: PodResources::default(),
            resized: BTreeSet::new(),
            start,
            now: start,
        }
    }

    fn plan(&self) -> Plan {
        let view = plan::View {
            backoff: &self.backoff,
            unhealthy: &self.unhealthy,
            starting: &self.starting,
            known_restarts: &BTreeMap::new(),
            actuated: &self.actuated,
            resized: &self.resized,
            now: self.now,
        };
        plan::plan(&self.pod, &self.runtime, &view)
    }

    /// Does what the plan says, until it says nothing or the same again.
    fn sync(&mut self) -> Answer {
        let mut out = String::new();
        for _ in 0..5 {
            let plan = self.plan();
            let acts = plan.actions.iter().any(|action| !matches!(action, Action::BackOff { .. }));
            for action in &plan.actions {
                self.carry_out(action, &mut out)?;
            }
            if let Some(wake) = plan.wake {
                writeln!(out, "look again at {}", self.at(wake))?;
            }
            if !acts {
                break;
            }
        }
        Ok(out)
    }

    fn at(&self, time: Timestamp) -> String {
        format!("+{}s", time.duration_since(self.start).as_secs())
    }

    fn carry_out(&mut self, action: &Action, out: &mut String) -> Result<(), Box<dyn Error>> {
        match action {
            Action::KillPod { finished } => {
                writeln!(out, "kill pod{}", if *finished { ", it is done" } else { "" })?;
                for container in &mut self.runtime.containers {
                    if container.state == RuntimeState::Running {
                        end(container, 137, "Error", self.now);
                    }
                }
                self.runtime.sandboxes.iter_mut().for_each(|sandbox| sandbox.ready = false);
            }
            Action::CreateSandbox { attempt } => {
                writeln!(out, "create sandbox {attempt}")?;
                let ips = vec![format!("10.128.0.{}", attempt + 2)];
                let sandbox = RuntimeSandbox { id: format!("s{attempt}"), ready: true, attempt: *attempt, ips };
                self.runtime.sandboxes.push(sandbox);
            }
            Action::Kill { id, name, reason } => {
                writeln!(out, "kill {name}: {}", reason.message(name))?;
                let found = self.runtime.containers.iter_mut().find(|container| container.id == *id);
                end(found.ok_or("no such container")?, 137, "Error", self.now);
                self.unhealthy.remove(id);
                if *reason == KillReason::Resize {
                    self.resized.insert(id.clone());
                }
            }
            Action::Resize(resizing) => {
                for (resource, updates) in [("memory", &resizing.memory), ("cpu", &resizing.cpu)] {
                    for update in updates {
                        writeln!(out, "resize {resource} of {}: {}", update.name, figures(update.to))?;
                        self.actuated.containers.insert(update.name.clone(), update.to.to_requirements());
                    }
                }
                if resizing.pod {
                    writeln!(out, "resize the pod")?;
                    self.actuated.pod = self.pod.spec().resources.clone();
                }
            }
            Action::Start { name, kind, attempt, restart_of } => {
                writeln!(out, "start {name} ({kind:?}), attempt {attempt}")?;
                if let Some((key, failed_at)) = restart_of {
                    self.backoff.next(key, *failed_at, self.now);
                }
                self.failures.remove(name);
                self.start_container(name, *attempt)?;
            }
            Action::BackOff { name, key, until, .. } => {
                let delay = words::duration(self.backoff.delay(key));
                writeln!(out, "back-off {delay} for {name} until {}", self.at(*until))?;
                let message =
                    format!("back-off {delay} restarting failed container={name} pod={}", self.pod.full_format());
                let failure = StartFailure { reason: "CrashLoopBackOff".to_owned(), message };
                self.failures.insert(name.clone(), failure);
            }
        }
        self.runtime.sort();
        Ok(())
    }

    fn start_container(&mut self, name: &str, attempt: u32) -> Result<(), Box<dyn Error>> {
        let (_, spec) = self.pod.container(name).ok_or("no such container")?;
        let image = spec.image.clone().unwrap_or_default();
        self.actuated.containers.insert(name.to_owned(), spec.resources.clone().unwrap_or_default());
        let container = RuntimeContainer {
            id: format!("{name}{attempt}"),
            name: name.to_owned(),
            sandbox_id: self.runtime.sandbox().ok_or("no sandbox")?.id.clone(),
            attempt,
            state: RuntimeState::Running,
            created_at: self.now,
            started_at: self.now,
            image_id: format!("docker.io/library/{image}"),
            image,
            hash: container_hash(&spec),
            ..RuntimeContainer::default()
        };
        self.runtime.containers.push(container);
        Ok(())
    }

    fn latest(&mut self, name: &str) -> Result<&mut RuntimeContainer, Box<dyn Error>> {
        let found = self.runtime.containers.iter_mut().find(|container| container.name == name);
        Ok(found.ok_or_else(|| format!("{name} was never started"))?)
    }

    fn status(&mut self) -> Answer {
        let view = status::View {
            failures: &self.failures,
            starting: &self.starting,
            unready: &self.unready,
            old: &self.old,
            terminating: self.terminating,
            forced: self.forced.as_ref(),
            host_ips: &["192.168.0.10".to_owned()],
            runtime_name: "containerd",
            resize: &[],
            actuated: &self.actuated,
            start_time: self.start,
            now: self.now,
        };
        self.old = status::status(&self.pod, &self.runtime, &view);
        render(&self.old, self.start)
    }
}

fn figures(what: CpuMemory) -> String {
    let CpuMemory { cpu_request, cpu_limit, memory_request, memory_limit } = what;
    format!("cpu {cpu_request}..{cpu_limit}, memory {memory_request}..{memory_limit}")
}

fn end(container: &mut RuntimeContainer, code: i32, reason: &str, now: Timestamp) {
    container.state = RuntimeState::Exited;
    container.exit_code = code;
    container.reason = reason.to_owned();
    container.finished_at = now;
}

fn render(status: &PodStatus, start: Timestamp) -> Answer {
    let mut out = String::new();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let ip = status.pod_ip.as_ref().map_or_else(String::new, |ip| format!(" ip={ip}"));
    write!(out, "{} {}{ip}", text(&status.phase), text(&status.qos_class))?;
    if let Some(reason) = &status.reason {
        write!(out, " {reason}: {}", text(&status.message))?;
    }
    out.push('\n');
    for condition in status.conditions.iter().flatten() {
        write!(out, "  {}={}", condition.type_, condition.status)?;
        if let Some(time) = &condition.last_transition_time {
            write!(out, " since +{}s", time.0.duration_since(start).as_secs())?;
        }
        if let Some(reason) = &condition.reason {
            write!(out, " {reason}")?;
        }
        if let Some(message) = &condition.message {
            write!(out, ": {message}")?;
        }
        out.push('\n');
    }
    for container in status.init_container_statuses.iter().chain(&status.container_statuses).flatten() {
        writeln!(out, "  {}", render_container(container)?)?;
    }
    Ok(out)
}

fn render_container(status: &ContainerStatus) -> Answer {
    let mut out = format!("{}: {}", status.name, render_state(&status.state));
    let last = render_state(&status.last_state);
    if !last.is_empty() {
        write!(out, ", last {last}")?;
    }
    write!(out, ", restarts {}", status.restart_count)?;
    out.push_str(if status.ready { ", ready" } else { "" });
    out.push_str(if status.started == Some(true) { ", started" } else { "" });
    Ok(out)
}

fn render_state(state: &Option<ContainerState>) -> String {
    let Some(state) = state else {
        return String::new();
    };
    if let Some(waiting) = &state.waiting {
        let message = waiting.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        return format!("waiting {}{message}", waiting.reason.clone().unwrap_or_default());
    }
    if state.running.is_some() {
        return "running".to_owned();
    }
    match &state.terminated {
        Some(ended) => format!("exited {} {}", ended.exit_code, ended.reason.clone().unwrap_or_default()),
        None => String::new(),
    }
}

impl goldenscript::Runner for World {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &goldenscript::Command, _: &goldenscript::Context) -> Answer {
        let mut arguments = command.consume_args();
        let mut word = |what: &str| arguments.next_pos().map(str::to_owned).ok_or_else(|| format!("which {what}?"));
        match command.name.as_str() {
            // A new pod with that spec.
            "pod" => {
                let spec: serde_json::Value = serde_yaml::from_str(&word("spec")?)?;
                let metadata = json!({"name": "web", "namespace": "default", "uid": "u1", "generation": 1});
                *self = World::new();
                self.pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec}))?;
                self.actuated = PodResources::of(&self.pod);
                Ok(String::new())
            }
            "sync" => self.sync(),
            "status" => self.status(),
            // Time goes on by that many seconds.
            "advance" => {
                self.now = self.now.checked_add(SignedDuration::from_secs(word("seconds")?.parse()?))?;
                Ok(String::new())
            }
            // A container ends: name, exit code, reason.
            "exit" => {
                let (name, code, now) = (word("container")?, word("code")?.parse()?, self.now);
                let reason = word("reason").unwrap_or(if code == 0 { "Completed" } else { "Error" }.to_owned());
                end(self.latest(&name)?, code, &reason, now);
                Ok(String::new())
            }
            // The sandbox dies with all that is in it.
            "lose-sandbox" => {
                self.runtime.sandboxes.iter_mut().for_each(|sandbox| sandbox.ready = false);
                let now = self.now;
                let running = |c: &&mut RuntimeContainer| c.state == RuntimeState::Running;
                self.runtime.containers.iter_mut().filter(running).for_each(|c| end(c, 137, "Error", now));
                Ok(String::new())
            }
            // Starting a container failed: name, reason, message.
            "fail" => {
                let (name, reason, message) = (word("container")?, word("reason")?, word("message")?);
                let alive = |c: &RuntimeContainer| c.state != RuntimeState::Exited;
                self.runtime.containers.retain(|c| c.name != name || !alive(c));
                self.failures.insert(name, StartFailure { reason, message });
                Ok(String::new())
            }
            // What a probe found: container, verdict.
            "probe" => {
                let (name, verdict) = (word("container")?, word("verdict")?);
                let id = self.latest(&name)?.id.clone();
                match verdict.as_str() {
                    "starting" => drop(self.starting.insert(id)),
                    "started" => drop(self.starting.remove(&id)),
                    "unready" => drop(self.unready.insert(id)),
                    "ready" => drop(self.unready.remove(&id)),
                    "dead" => drop(self.unhealthy.insert(id, KillReason::Liveness)),
                    other => return Err(format!("unknown verdict {other}").into()),
                }
                Ok(String::new())
            }
            // Other resources are allocated to a container: name, requests and limits.
            "resize" => {
                let (name, resources) = (word("container")?, serde_yaml::from_str(&word("resources")?)?);
                let spec = self.pod.spec.as_mut().ok_or("no pod")?;
                let mut containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
                let found = containers.find(|container| container.name == name).ok_or("no such container")?;
                found.resources = Some(resources);
                Ok(String::new())
            }
            // Every container has another image now.
            "set-image" => {
                let image = word("image")?;
                let spec = self.pod.spec.as_mut().ok_or("no pod")?;
                spec.containers.iter_mut().for_each(|container| container.image = Some(image.clone()));
                Ok(String::new())
            }
            "terminate" => {
                self.terminating = true;
                let mut out = String::new();
                self.carry_out(&Action::KillPod { finished: true }, &mut out)?;
                Ok(out)
            }
            "force" => {
                self.forced = Some(Forced { reason: word("reason")?, message: word("message")? });
                Ok(String::new())
            }
            other => Err(format!("unknown command {other}").into()),
        }
    }
}
