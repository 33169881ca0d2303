//! Asks the runtime what it has of a pod.
//!
//! (kubelet: `kuberuntime_manager.go`, `GetPodStatus`; `kuberuntime_container.go`, `getTerminationMessage`.)

use std::collections::BTreeMap;

use jiff::Timestamp;
use minik8s_cri::proto;
use minik8s_cri::{Client, NodeFs};

use crate::error::Result;
use crate::resources::{quota_to_millis, shares_to_millis};
use crate::runtime::{
    CONTAINER_HASH_ANNOTATION, POD_UID_LABEL, RuntimeContainer, RuntimePod, RuntimeResources, RuntimeSandbox,
    RuntimeState, TERMINATION_MESSAGE_PATH_ANNOTATION, TERMINATION_MESSAGE_POLICY_ANNOTATION,
};

/// The longest termination message that is read; of a longer one it is the end (`MaxContainerTerminationMessageLength`).
const MESSAGE_MAX_BYTES: usize = 4096;
/// The longest termination message taken from a log.
const LOG_MESSAGE_MAX_BYTES: usize = 2048;
/// The most lines of a termination message taken from a log.
const LOG_MESSAGE_MAX_LINES: usize = 80;

/// The labels by which sandboxes and containers of one pod are found.
pub fn pod_selector(uid: &str) -> std::collections::BTreeMap<String, String> {
    [(POD_UID_LABEL.to_owned(), uid.to_owned())].into_iter().collect()
}

/// What the runtime has of the pod with that UID.
///
/// # Errors
/// The runtime's.
pub async fn observe(cri: &Client, fs: &dyn NodeFs, uid: &str) -> Result<RuntimePod> {
    let mut pod = RuntimePod::default();
    let filter = proto::PodSandboxFilter { label_selector: pod_selector(uid), ..Default::default() };
    for sandbox in cri.list_pod_sandbox(Some(filter)).await? {
        let ready = sandbox.state == proto::PodSandboxState::SandboxReady as i32;
        let attempt = sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
        // Only a sandbox that lives has an address worth asking for.
        let ips = if ready { sandbox_ips(cri, &sandbox.id).await? } else { Vec::new() };
        pod.sandboxes.push(RuntimeSandbox { id: sandbox.id, ready, attempt, ips });
    }
    let filter = proto::ContainerFilter { label_selector: pod_selector(uid), ..Default::default() };
    for container in cri.list_containers(Some(filter)).await? {
        match cri.container_status(&container.id).await {
            Ok(status) => pod.containers.push(convert(status, container.pod_sandbox_id, fs)),
            // It was removed between the two calls.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    pod.sort();
    Ok(pod)
}

async fn sandbox_ips(cri: &Client, id: &str) -> Result<Vec<String>> {
    let status = match cri.pod_sandbox_status(id).await {
        Ok(response) => response.status,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let Some(network) = status.and_then(|status| status.network) else {
        return Ok(Vec::new());
    };
    let more = network.additional_ips.into_iter().map(|ip| ip.ip);
    Ok(std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect())
}

fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn convert(status: proto::ContainerStatus, sandbox_id: String, fs: &dyn NodeFs) -> RuntimeContainer {
    let state = match proto::ContainerState::try_from(status.state) {
        Ok(proto::ContainerState::ContainerCreated) => RuntimeState::Created,
        Ok(proto::ContainerState::ContainerRunning) => RuntimeState::Running,
        Ok(proto::ContainerState::ContainerExited) => RuntimeState::Exited,
        _ => RuntimeState::Unknown,
    };
    let message = if state == RuntimeState::Exited {
        termination_message(&status, fs).unwrap_or_else(|| status.message.clone())
    } else {
        String::new()
    };
    let recursive = status.mounts.iter().filter(|mount| mount.recursive_read_only);
    let recursive_read_only = recursive.map(|mount| mount.container_path.clone()).collect();
    let metadata = status.metadata.unwrap_or_default();
    let image = status.image.unwrap_or_default();
    let named = [image.user_specified_image, image.image].into_iter().find(|name| !name.is_empty());
    let user = status.user.and_then(|user| user.linux);
    RuntimeContainer {
        id: status.id,
        name: metadata.name,
        sandbox_id,
        attempt: metadata.attempt,
        state,
        created_at: timestamp(status.created_at),
        started_at: timestamp(status.started_at),
        finished_at: timestamp(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message,
        image: named.unwrap_or_default(),
        image_id: status.image_ref,
        resources: status.resources.and_then(|resources| reported(&resources.linux?)),
        hash: status.annotations.get(CONTAINER_HASH_ANNOTATION).cloned().unwrap_or_default(),
        user: user.map(|user| (user.uid, user.gid, user.supplemental_groups)),
        log_path: status.log_path,
        recursive_read_only,
    }
}

/// What a runtime reports of a container's resources (`kuberuntime/helpers_linux.go`, `toKubeContainerResources`).
fn reported(linux: &proto::LinuxContainerResources) -> Option<RuntimeResources> {
    let positive = |amount: i64| (amount > 0).then_some(amount);
    let resources = RuntimeResources {
        cpu_request: positive(shares_to_millis(linux.cpu_shares)),
        cpu_limit: positive(quota_to_millis(linux.cpu_quota, linux.cpu_period)),
        memory_limit: positive(linux.memory_limit_in_bytes),
    };
    (resources != RuntimeResources::default()).then_some(resources)
}

/// What the container said last: its termination message file or, if it failed and asks for it, the end of its log.
fn termination_message(status: &proto::ContainerStatus, fs: &dyn NodeFs) -> Option<String> {
    let path = status.annotations.get(TERMINATION_MESSAGE_PATH_ANNOTATION)?;
    let mount = status.mounts.iter().find(|mount| mount.container_path == *path)?;
    // A file that was never written has no words; of a long one the last count.
    let length = fs.metadata(&mount.host_path).map_or(0, |metadata| metadata.len);
    let start = length.saturating_sub(MESSAGE_MAX_BYTES as u64);
    let data = fs.read_at(&mount.host_path, start, MESSAGE_MAX_BYTES).unwrap_or_default();
    if !data.is_empty() {
        return Some(String::from_utf8_lossy(&data).into_owned());
    }
    let policy = status.annotations.get(TERMINATION_MESSAGE_POLICY_ANNOTATION).map(String::as_str);
    if policy != Some("FallbackToLogsOnError") || status.exit_code == 0 {
        return None;
    }
    let length = fs.metadata(&status.log_path).ok()?.len;
    // A log line has up to 50 bytes before its text.
    let window = (LOG_MESSAGE_MAX_BYTES + LOG_MESSAGE_MAX_LINES * 50) as u64;
    let tail = fs.read_at(&status.log_path, length.saturating_sub(window), usize::MAX / 2).ok()?;
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<String> = text.lines().filter_map(said).collect();
    let mut message = lines[lines.len().saturating_sub(LOG_MESSAGE_MAX_LINES)..].concat();
    let mut cut = message.len().saturating_sub(LOG_MESSAGE_MAX_BYTES);
    while !message.is_char_boundary(cut) {
        cut += 1;
    }
    Some(message.split_off(cut)).filter(|message| message != "\n")
}

/// The text of a log line, with its end if it has one: of a partial line the rest follows, or never came.
fn said(line: &str) -> Option<String> {
    let mut parts = line.splitn(4, ' ').skip(2);
    let (tag, text) = (parts.next()?, parts.next()?);
    Some(if tag == "P" { text.to_owned() } else { format!("{text}\n") })
}

/// The UIDs of all pods the runtime has something of, with their namespaces and names.
///
/// # Errors
/// The runtime's.
pub async fn known_pods(cri: &Client) -> Result<BTreeMap<String, (String, String)>> {
    let mut pods = BTreeMap::new();
    for sandbox in cri.list_pod_sandbox(None).await? {
        if let Some(metadata) = sandbox.metadata {
            pods.insert(metadata.uid, (metadata.namespace, metadata.name));
        }
    }
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_clock::Clock;
    use minik8s_cri::MemoryFs;

    #[test]
    fn last_words_are_bounded() {
        let fs = MemoryFs::new(Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap()).0, 1 << 20);
        let path = "/dev/termination-log";
        let annotations = [
            (TERMINATION_MESSAGE_PATH_ANNOTATION, path),
            (TERMINATION_MESSAGE_POLICY_ANNOTATION, "FallbackToLogsOnError"),
        ];
        let mount =
            proto::Mount { container_path: path.to_owned(), host_path: "/message".to_owned(), ..Default::default() };
        let status = proto::ContainerStatus {
            annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            mounts: vec![mount],
            log_path: "/0.log".to_owned(),
            exit_code: 1,
            ..Default::default()
        };
        let lines = |count: usize, text: &str| format!("2026-01-01T00:00:00Z stdout F {text}\n").repeat(count);

        fs.write("/0.log", lines(1000, "short").as_bytes()).unwrap();
        assert_eq!(termination_message(&status, &fs).unwrap(), "short\n".repeat(LOG_MESSAGE_MAX_LINES));
        fs.write("/0.log", lines(100, &"x".repeat(1000)).as_bytes()).unwrap();
        assert_eq!(termination_message(&status, &fs).unwrap().len(), LOG_MESSAGE_MAX_BYTES);
        fs.write("/0.log", b"2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stdout P two\n").unwrap();
        assert_eq!(termination_message(&status, &fs).unwrap(), "one\ntwo", "its last line had no end");
        let words = ["x", "y"].map(|word| word.repeat(MESSAGE_MAX_BYTES));
        fs.write("/message", words.concat().as_bytes()).unwrap();
        assert_eq!(termination_message(&status, &fs).unwrap(), words[1], "the end of it");
    }
}
