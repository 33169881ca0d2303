//! What controllers ask about pods: ready, available, which one goes first. Pure.
//! (Kubernetes: `pkg/api/v1/pod/util.go`, `pkg/controller/controller_utils.go`.)

use std::cmp::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LocalObjectReference, Pod, PodCondition, Volume};
use k8s_openapi::jiff::Timestamp;

/// The annotation by which users say which pods may go first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A pod's condition of this type.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// The pod's phase.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod serves.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Whether the pod has neither ended nor been told to.
pub fn is_active(pod: &Pod) -> bool {
    !matches!(phase(pod), "Succeeded" | "Failed") && pod.metadata.deletion_timestamp.is_none()
}

/// Whether the pod was told to end and has not.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && !matches!(phase(pod), "Succeeded" | "Failed")
}

/// How long until the pod has been ready for `min_ready`: zero when it has, `None` when it is not ready.
pub fn available_in(pod: &Pod, min_ready: Duration, now: Timestamp) -> Option<Duration> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    if min_ready.is_zero() {
        return Some(Duration::ZERO);
    }
    let since = ready.last_transition_time.as_ref()?.0;
    let been = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(min_ready.saturating_sub(been))
}

/// Whether the pod has been ready for long enough.
pub fn is_available(pod: &Pod, min_ready: Duration, now: Timestamp) -> bool {
    available_in(pod, min_ready, now) == Some(Duration::ZERO)
}

/// How often the containers of the pod were restarted.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}

/// The secrets of its namespace that the pod names: pull secrets, environment, volumes (`pkg/api/v1/pod` `VisitPodSecretNames`).
pub fn secret_names(pod: &Pod) -> Vec<&str> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut names: Vec<&str> =
        spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.as_str()).collect();
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let containers = containers.map(|container| (&container.env, &container.env_from));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| (&container.env, &container.env_from));
    for (env, env_from) in containers.chain(ephemeral) {
        let sources = env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
        names.extend(sources.filter_map(|source| Some(source.secret_key_ref.as_ref()?.name.as_str())));
        names.extend(env_from.iter().flatten().filter_map(|source| Some(source.secret_ref.as_ref()?.name.as_str())));
    }
    names.extend(spec.volumes.iter().flatten().flat_map(volume_secret_names));
    names
}

fn secret_name(reference: &Option<LocalObjectReference>) -> Option<&str> {
    reference.as_ref().map(|own| own.name.as_str())
}

fn volume_secret_names(volume: &Volume) -> Vec<&str> {
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let projected = projected.filter_map(|source| Some(source.secret.as_ref()?.name.as_str()));
    let single = [
        volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref()),
        volume.azure_file.as_ref().map(|file| file.secret_name.as_str()),
        volume.cephfs.as_ref().and_then(|own| secret_name(&own.secret_ref)),
        volume.flex_volume.as_ref().and_then(|own| secret_name(&own.secret_ref)),
        volume.rbd.as_ref().and_then(|own| secret_name(&own.secret_ref)),
        volume.iscsi.as_ref().and_then(|own| secret_name(&own.secret_ref)),
        volume.storageos.as_ref().and_then(|own| secret_name(&own.secret_ref)),
        volume.scale_io.as_ref().map(|own| own.secret_ref.name.as_str()),
        volume.csi.as_ref().and_then(|own| secret_name(&own.node_publish_secret_ref)),
    ];
    single.into_iter().flatten().chain(projected).collect()
}

fn deletion_cost(pod: &Pod) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Which of two pods should go first when there are too many: `Less` goes first. `neighbours` is how many pods of the
/// same owner are on the pod's node. (`ActivePodsWithRanks`.)
pub fn deletion_order(left: (&Pod, usize), right: (&Pod, usize), now: Timestamp) -> Ordering {
    let ((a, a_neighbours), (b, b_neighbours)) = (left, right);
    let assigned = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let rank = |pod: &Pod| match phase(pod) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let ready_for = |pod: &Pod| {
        let since = condition(pod, "Ready").and_then(|condition| condition.last_transition_time.as_ref());
        since.map(|time| logarithm(now, time.0))
    };
    let age = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| logarithm(now, time.0));
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| rank(a).cmp(&rank(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| b_neighbours.cmp(&a_neighbours))
        .then_with(|| if is_ready(a) && is_ready(b) { ready_for(a).cmp(&ready_for(b)) } else { Ordering::Equal })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| age(a).cmp(&age(b)))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

/// Ages are compared by their order of magnitude, so that pods of about the same age are chosen from at random (by UID).
fn logarithm(now: Timestamp, then: Timestamp) -> i64 {
    let seconds = now.duration_since(then).as_secs().max(0);
    if seconds == 0 { 0 } else { (seconds as f64).log10() as i64 + 1 }
}
