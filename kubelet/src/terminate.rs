//! The end of a pod: hooks, SIGTERM, grace period, last status, cleaning up, and the final delete.
//!
//! (kubelet: `kubelet.go`, `SyncTerminatingPod`, `SyncTerminatedPod`; `kuberuntime_container.go`, `killContainer`;
//! `status_manager.go`, `canBeDeleted`.)

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use minik8s_client::{EventType, is_conflict, is_not_found};

use crate::container_config::log_directory;
use crate::error::Result;
use crate::hooks::Hook;
use crate::kubelet::Kubelet;
use crate::observe;
use crate::plan::KillReason;
use crate::runtime::{RuntimeContainer, RuntimePod};
use crate::spec::{ContainerKind, PodExt as _};
use crate::sync::Wake;
use crate::volumes;
use crate::worker::{PodWorker, SyncState};

/// How long a container without a pod gets to end.
const ORPHAN_GRACE_SECONDS: i64 = 30;
/// What a container gets at least after its hook took its time.
const GRACE_MIN_SECONDS: i64 = 2;

impl Kubelet {
    /// Ends a pod that is to be deleted, that has failed as a whole, or whose containers are all done.
    pub(crate) async fn terminate(self: &Arc<Self>, worker: &Arc<PodWorker>, state: &mut SyncState) -> Result<Wake> {
        let mut input = worker.input();
        let pod = self.allocated(&input.pod);
        let mut runtime = observe::observe(&self.config.cri, self.config.fs.as_ref(), &worker.uid).await?;
        if !state.terminated {
            // Said before it is done: readers see that the pod ends. Of a pod that is gone nobody reads a status.
            if !input.gone
                && !runtime.is_stopped()
                && let Err(error) = self.report(&pod, &runtime, worker, state, false).await
            {
                // That nobody hears of it is no reason to let the pod run on.
                tracing::debug!(pod = pod.full_format(), %error, "a status could not be sent");
            }
            self.kill_pod(worker, &runtime).await?;
            worker.probes.lock().stop();
            runtime = observe::observe(&self.config.cri, self.config.fs.as_ref(), &worker.uid).await?;
            state.terminated = true;
            input = worker.input();
        }
        if !input.gone {
            self.report(&self.allocated(&input.pod), &runtime, worker, state, true).await?;
        }
        // What its containers said last stays beside them.
        volumes::tear_down(self.config.fs.as_ref(), &worker.uid)?;
        self.objects.release(&worker.uid);
        if !input.is_ending() {
            // It is done, not deleted: its dead containers stay, so that their logs can be read.
            return Ok(Wake::default());
        }
        self.clean_up(&worker.uid, &runtime, &log_directory(&input.pod)).await?;
        if !input.gone && !input.pod.is_static() && !self.delete_from_api(&input.pod).await? {
            return Ok(Wake::default());
        }
        if input.pod.is_static() {
            self.delete_mirror(&input.pod).await;
        }
        self.forget(&worker.uid);
        Ok(Wake::default())
    }

    /// Drops all that is remembered about a pod.
    fn forget(&self, uid: &str) {
        self.workers.lock().remove(uid);
        self.allocations.lock().forget(uid);
        self.retry_resizes();
        self.restarts.lock().forget_pod(uid);
        let mut pulls = self.pulls.lock();
        pulls.0.forget_pod(uid);
        pulls.1.retain(|key, _| !key.starts_with(uid));
    }

    /// Removes what the runtime and the disk still have of a pod that has ended.
    async fn clean_up(&self, uid: &str, runtime: &RuntimePod, logs: &str) -> Result<()> {
        for container in &runtime.containers {
            ignore_not_found(self.config.cri.remove_container(&container.id).await)?;
        }
        for sandbox in &runtime.sandboxes {
            ignore_not_found(self.config.cri.remove_pod_sandbox(&sandbox.id).await)?;
        }
        self.config.fs.remove_all(logs)?;
        volumes::forget(self.config.fs.as_ref(), uid)
    }

    /// Deletes the pod for good. False if it must not be deleted yet: something else still holds it.
    async fn delete_from_api(&self, pod: &Pod) -> Result<bool> {
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let params = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
        match self.config.client.namespaced::<Pod>(pod.namespace()).delete(pod.name(), &params).await {
            Ok(_) => Ok(pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)),
            // Gone already, or another pod has the name by now.
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Stops every container of the pod and its sandboxes: first the regular ones together, then the sidecars, last
    /// started first ended.
    pub(crate) async fn kill_pod(self: &Arc<Self>, worker: &Arc<PodWorker>, runtime: &RuntimePod) -> Result<()> {
        let pod = worker.input().pod;
        let kind = |container: &RuntimeContainer| pod.container(&container.name).map(|(kind, _)| kind);
        let is_sidecar = |container: &&RuntimeContainer| kind(container) == Some(ContainerKind::Sidecar);
        let clock = &self.config.clock;
        let begun = clock.monotonic();
        let others: Vec<_> = runtime.alive().filter(|container| !is_sidecar(container)).collect();
        let mut ends: Vec<BoxFuture<'_, ()>> = Vec::new();
        for one in &others {
            let end = self.end_container(worker, &pod, &one.id, &one.name, None, Duration::ZERO);
            ends.push(end.boxed());
        }
        join_all(ends).await;
        let order = |container: &RuntimeContainer| {
            pod.spec().init_containers.iter().flatten().position(|spec| spec.name == container.name)
        };
        let mut sidecars: Vec<_> = runtime.alive().filter(is_sidecar).collect();
        sidecars.sort_by_key(|container| std::cmp::Reverse(order(container)));
        for container in sidecars {
            let used = clock.monotonic() - begun;
            self.end_container(worker, &pod, &container.id, &container.name, None, used).await;
        }
        for sandbox in runtime.sandboxes.iter().filter(|sandbox| sandbox.ready) {
            ignore_not_found(self.config.cri.stop_pod_sandbox(&sandbox.id).await)?;
        }
        Ok(())
    }

    /// Stops one container of a pod that goes on.
    pub(crate) async fn kill_container(
        self: &Arc<Self>,
        worker: &Arc<PodWorker>,
        pod: &Arc<Pod>,
        id: &str,
        name: &str,
        reason: Option<KillReason>,
    ) {
        self.end_container(worker, pod, id, name, reason, Duration::ZERO).await;
    }

    /// Hook, signal, grace. A failure leaves the container to the next sync.
    async fn end_container(
        self: &Arc<Self>,
        worker: &Arc<PodWorker>,
        pod: &Arc<Pod>,
        id: &str,
        name: &str,
        reason: Option<KillReason>,
        used: Duration,
    ) {
        let Some((kind, container)) = pod.container(name) else {
            return;
        };
        let reference = pod.container_reference(kind, name);
        let message = reason.unwrap_or(KillReason::PodFinished).message(name);
        self.event(&reference, EventType::Normal, "Killing", message);
        let probe = match reason {
            Some(KillReason::Liveness) => container.liveness_probe.as_ref(),
            Some(KillReason::Startup) => container.startup_probe.as_ref(),
            _ => None,
        };
        let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
        let clock = &self.config.clock;
        let begun = clock.monotonic();
        let grace = own.unwrap_or_else(|| worker.input().grace_period_seconds());
        let lifecycle = container.lifecycle.as_ref();
        if let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            let hook = Hook { handler, container: &container, id, pod_ip: ip.as_deref() };
            let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0)).saturating_sub(used);
            match clock.timeout(limit, self.run_hook(hook)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(pod = pod.full_format(), container = name, error, "preStop hook failed");
                    self.event(&reference, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
                }
                Err(_) => tracing::debug!(pod = pod.full_format(), container = name, "preStop hook took too long"),
            }
        }
        let left = |grace: i64| {
            let spent = i64::try_from((used + (clock.monotonic() - begun)).as_secs()).unwrap_or(i64::MAX);
            (grace - spent).max(grace.min(GRACE_MIN_SECONDS))
        };
        let stop = self.stop_within(worker, id, grace, left, own.is_none());
        if let Err(error) = stop.await
            && !error.is_not_found()
        {
            tracing::warn!(pod = pod.full_format(), container = name, %error, "could not stop a container");
        }
    }

    /// Stops a container, sooner if the grace period of its pod is cut short meanwhile.
    async fn stop_within(
        &self,
        worker: &PodWorker,
        id: &str,
        grace: i64,
        left: impl Fn(i64) -> i64,
        follow_pod: bool,
    ) -> minik8s_cri::Result<()> {
        let cri = &self.config.cri;
        let patient = cri.stop_container(id, left(grace));
        if !follow_pod {
            return patient.await;
        }
        let shortened = async {
            loop {
                let notified = worker.changed.notified();
                let now = worker.input().grace_period_seconds();
                if now < grace {
                    return now;
                }
                notified.await;
            }
        };
        tokio::pin!(patient);
        tokio::select! {
            biased;
            result = &mut patient => result,
            grace = shortened => {
                let (sooner, patient) = futures::join!(cri.stop_container(id, left(grace)), patient);
                sooner.and(patient)
            }
        }
    }

    /// Ends what the runtime has of pods that are no longer bound to this node, after the kubelet was away.
    pub(crate) async fn remove_orphans(self: &Arc<Self>) {
        let known = match observe::known_pods(&self.config.cri).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(node = self.config.node_name, %error, "could not list what runs");
                return;
            }
        };
        let orphans: Vec<_> = known.into_iter().filter(|(uid, _)| self.worker(uid).is_none()).collect();
        let removals = orphans.iter().map(|(uid, (namespace, name))| async move {
            let logs = format!("/var/log/pods/{namespace}_{name}_{uid}");
            if let Err(error) = self.remove_orphan(uid, &logs).await {
                tracing::warn!(uid, %error, "could not remove a pod that is no longer here");
            }
        });
        join_all(removals).await;
    }

    async fn remove_orphan(&self, uid: &str, logs: &str) -> Result<()> {
        let fs = self.config.fs.as_ref();
        let runtime = observe::observe(&self.config.cri, fs, uid).await?;
        let stops = runtime.alive().map(|c| self.config.cri.stop_container(&c.id, ORPHAN_GRACE_SECONDS));
        for stopped in join_all(stops).await {
            ignore_not_found(stopped)?;
        }
        for sandbox in runtime.sandboxes.iter().filter(|sandbox| sandbox.ready) {
            ignore_not_found(self.config.cri.stop_pod_sandbox(&sandbox.id).await)?;
        }
        self.clean_up(uid, &runtime, logs).await
    }
}

fn ignore_not_found(result: minik8s_cri::Result<()>) -> Result<()> {
    match result {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}
