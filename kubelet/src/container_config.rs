//! What the runtime is told to make: sandboxes and containers, from a Pod.
//!
//! (kubelet: `kuberuntime_sandbox.go`, `generatePodSandboxConfig`; `kuberuntime_container.go`,
//! `generateContainerConfig`; `kuberuntime_container_linux.go`; `network/dns/dns.go`.)

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext, Volume, VolumeMount,
};
use minik8s_cri::proto;

use crate::env;
use crate::error::{Error, Result};
use crate::resources::{self, CgroupLimits};
use crate::runtime;
use crate::spec::{self, PodExt as _};
use crate::sysctl::sysctls;

/// Where the logs of pods are.
pub(crate) const POD_LOGS: &str = "/var/log/pods";
/// The longest host name.
const HOST_NAME_MAX: usize = 63;
/// Where a container writes its termination message unless it says otherwise.
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";
/// Where a pod's hosts file appears in its containers.
pub const HOSTS_PATH: &str = "/etc/hosts";

/// How containers resolve names.
#[derive(Clone, Debug, Default)]
pub struct Dns {
    /// The cluster's DNS servers.
    pub servers: Vec<String>,
    /// The cluster's domain.
    pub domain: String,
}

/// The folder of a pod's logs.
pub fn log_directory(pod: &Pod) -> String {
    format!("{POD_LOGS}/{}_{}_{}", pod.namespace(), pod.name(), pod.uid())
}

/// The log of one start of one container, below [`log_directory`].
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// The pod's host name.
pub fn host_name(pod: &Pod, node_name: &str) -> String {
    let spec = pod.spec();
    if let Some(name) = spec.hostname_override.as_ref().filter(|name| !name.is_empty()) {
        return name.clone();
    }
    if pod.is_host_network() {
        return node_name.to_owned();
    }
    let name = spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(pod.name());
    let cut: String = name.chars().take(HOST_NAME_MAX).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The pod's fully qualified name, if it has one: a subdomain is what gives it one.
pub fn host_domain(pod: &Pod, domain: &str) -> Option<String> {
    let subdomain = pod.spec().subdomain.as_ref().filter(|subdomain| !subdomain.is_empty())?;
    Some(format!("{subdomain}.{}.svc.{domain}", pod.namespace()))
}

fn dns_config(pod: &Pod, dns: &Dns) -> proto::DnsConfig {
    let spec = pod.spec();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !pod.is_host_network(),
        _ => false,
    };
    let mut config = proto::DnsConfig::default();
    if cluster && !dns.servers.is_empty() {
        let (namespace, domain) = (pod.namespace(), &dns.domain);
        config.servers.clone_from(&dns.servers);
        config.searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        config.options = vec!["ndots:5".to_owned()];
    }
    if let Some(own) = &spec.dns_config {
        let add = |list: &mut Vec<String>, more: &Option<Vec<String>>| {
            for item in more.iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut config.servers, &own.nameservers);
        add(&mut config.searches, &own.searches);
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            config.options.retain(|old| old.split(':').next() != Some(&name));
            config.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    config
}

/// The configuration of the pod's `attempt`th sandbox.
pub fn sandbox_config(pod: &Pod, attempt: u32, node_name: &str, dns: &Dns) -> proto::PodSandboxConfig {
    let mut labels: BTreeMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(identity_labels(pod));
    let mut port_mappings = Vec::new();
    for (_, container) in pod.all_containers() {
        for port in container.ports.iter().flatten() {
            port_mappings.push(proto::PortMapping {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => proto::Protocol::Udp as i32,
                    Some("SCTP") => proto::Protocol::Sctp as i32,
                    _ => proto::Protocol::Tcp as i32,
                },
                container_port: port.container_port,
                host_port: port.host_port.unwrap_or(0),
                host_ip: port.host_ip.clone().unwrap_or_default(),
            });
        }
    }
    proto::PodSandboxConfig {
        metadata: Some(proto::PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        hostname: host_name(pod, node_name),
        log_directory: log_directory(pod),
        dns_config: Some(dns_config(pod, dns)),
        port_mappings,
        labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(linux_sandbox(pod)),
        windows: None,
    }
}

fn identity_labels(pod: &Pod) -> [(String, String); 3] {
    [
        (runtime::POD_NAME_LABEL.to_owned(), pod.name().to_owned()),
        (runtime::POD_NAMESPACE_LABEL.to_owned(), pod.namespace().to_owned()),
        (runtime::POD_UID_LABEL.to_owned(), pod.uid().to_owned()),
    ]
}

fn namespaces(pod: &Pod) -> proto::NamespaceOption {
    let spec = pod.spec();
    let node_or = |host: Option<bool>, other: proto::NamespaceMode| {
        if host == Some(true) { proto::NamespaceMode::Node as i32 } else { other as i32 }
    };
    let pid = if spec.share_process_namespace == Some(true) {
        proto::NamespaceMode::Pod
    } else {
        proto::NamespaceMode::Container
    };
    proto::NamespaceOption {
        network: node_or(spec.host_network, proto::NamespaceMode::Pod),
        pid: node_or(spec.host_pid, pid),
        ipc: node_or(spec.host_ipc, proto::NamespaceMode::Pod),
        target_id: String::new(),
        userns_options: None,
    }
}

fn int64(value: Option<i64>) -> Option<proto::Int64Value> {
    value.map(|value| proto::Int64Value { value })
}

fn seccomp(profile: Option<&SeccompProfile>) -> Option<proto::SecurityProfile> {
    use proto::security_profile::ProfileType;
    let profile_type = match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => ProfileType::RuntimeDefault,
        Some("Localhost") => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    let localhost_ref = profile.and_then(|profile| profile.localhost_profile.clone()).unwrap_or_default();
    Some(proto::SecurityProfile { profile_type: profile_type as i32, localhost_ref })
}

fn groups_policy(context: &PodSecurityContext) -> i32 {
    match context.supplemental_groups_policy.as_deref() {
        Some("Strict") => proto::SupplementalGroupsPolicy::Strict as i32,
        _ => proto::SupplementalGroupsPolicy::Merge as i32,
    }
}

fn groups(context: &PodSecurityContext) -> Vec<i64> {
    let more = context.supplemental_groups.iter().flatten().copied();
    context.fs_group.into_iter().chain(more).collect()
}

fn linux_sandbox(pod: &Pod) -> proto::LinuxPodSandboxConfig {
    let context = pod.spec().security_context.clone().unwrap_or_default();
    let is_privileged = |c: &Container| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true));
    let security_context = proto::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: int64(context.run_as_user),
        run_as_group: int64(context.run_as_group),
        supplemental_groups: groups(&context),
        supplemental_groups_policy: groups_policy(&context),
        privileged: pod.all_containers().iter().any(|(_, container)| is_privileged(container)),
        seccomp: seccomp(context.seccomp_profile.as_ref()),
        selinux_options: selinux(context.se_linux_options.as_ref()),
        ..Default::default()
    };
    let qos = match resources::qos_class(pod) {
        "Guaranteed" => String::new(),
        class => format!("/{}", class.to_lowercase()),
    };
    proto::LinuxPodSandboxConfig {
        cgroup_parent: format!("/kubepods{qos}/pod{}", pod.uid()),
        security_context: Some(security_context),
        sysctls: sysctls(pod),
        resources: Some(linux_resources(resources::sandbox_limits(pod))),
        overhead: Some(overhead(pod)),
    }
}

/// What running the pod costs beside its containers: both request and limit.
pub fn overhead(pod: &Pod) -> proto::LinuxContainerResources {
    match resources::overhead_limits(pod) {
        Some(limits) => linux_resources(limits),
        None => proto::LinuxContainerResources::default(),
    }
}

/// A label for the runtime, which lets it be where the node has no SELinux.
fn selinux(options: Option<&SELinuxOptions>) -> Option<proto::SeLinuxOption> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    options.map(|options| proto::SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    })
}

/// The volumes of a pod, by name.
#[derive(Clone, Copy)]
pub struct Volumes<'a> {
    /// Where on the node they are.
    pub paths: &'a BTreeMap<String, String>,
    /// Those that are images.
    pub images: &'a BTreeMap<String, proto::ImageSpec>,
}

/// What a container is made from, beside its spec.
pub struct Parts<'a> {
    /// How often it was started before.
    pub attempt: u32,
    /// The image, resolved to what is on the node.
    pub image_ref: String,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its pod's volumes.
    pub volumes: Volumes<'a>,
    /// What stands on the node for a part of a volume that was copied for this container, by the path of the mount.
    pub copies: BTreeMap<String, String>,
    /// Whether the runtime can make mounts read-only with all that is mounted below them.
    pub recursive_read_only: bool,
    /// The pod's hosts file on the node, unless the container mounts its own.
    pub hosts_file: Option<String>,
    /// Where on the node its termination message will be.
    pub termination_log: String,
    /// The memory of the node in bytes, for the OOM score.
    pub memory_capacity: i64,
    /// The user the image names, for `runAsNonRoot`: a number, a name, or nothing.
    pub image_user: Option<Result<i64, String>>,
    /// The container whose processes it is to see, by its number in the runtime.
    pub target: Option<String>,
}

impl Parts<'_> {
    /// A target counts only where no larger part of the node is shared.
    fn namespaces(&self, pod: &Pod) -> proto::NamespaceOption {
        let pods = namespaces(pod);
        match &self.target {
            Some(target) if pods.pid == proto::NamespaceMode::Container as i32 => {
                proto::NamespaceOption { pid: proto::NamespaceMode::Target as i32, target_id: target.clone(), ..pods }
            }
            _ => pods,
        }
    }
}

/// The configuration of one container.
///
/// # Errors
/// What the spec asks for and cannot be had; the words are those of `CreateContainerConfigError`.
pub fn container_config(pod: &Pod, container: &Container, parts: Parts<'_>) -> Result<proto::ContainerConfig> {
    let context = container.security_context.clone().unwrap_or_default();
    let pod_context = pod.spec().security_context.clone().unwrap_or_default();
    verify_non_root(pod, container, &context, &pod_context, parts.image_user.as_ref())?;
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        mounts.push(volume_mount(pod, mount, &parts)?);
    }
    if let Some(hosts) = &parts.hosts_file
        && mounts.iter().all(|mount| mount.container_path != HOSTS_PATH)
    {
        mounts.push(bind(hosts.clone(), HOSTS_PATH));
    }
    let message_path = container.termination_message_path.as_deref().unwrap_or(TERMINATION_MESSAGE_PATH);
    mounts.push(bind(parts.termination_log.clone(), message_path));
    let expand = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| env::expand(text, &parts.env)).collect()
    };
    let mut labels: BTreeMap<String, String> = identity_labels(pod).into_iter().collect();
    labels.insert(runtime::CONTAINER_NAME_LABEL.to_owned(), container.name.clone());
    Ok(proto::ContainerConfig {
        metadata: Some(proto::ContainerMetadata { name: container.name.clone(), attempt: parts.attempt }),
        image: Some(proto::ImageSpec {
            image: parts.image_ref.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: parts
            .env
            .iter()
            .map(|(key, value)| proto::KeyValue { key: key.clone(), value: value.clone().into_bytes() })
            .collect(),
        mounts,
        labels,
        annotations: annotations(pod, container, parts.attempt, message_path),
        log_path: log_path(&container.name, parts.attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(linux_container(pod, container, &context, &pod_context, &parts)?),
        ..Default::default()
    })
}

fn annotations(pod: &Pod, container: &Container, attempt: u32, message_path: &str) -> BTreeMap<String, String> {
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let mut annotations = BTreeMap::from([
        (runtime::CONTAINER_HASH_ANNOTATION.to_owned(), spec::container_hash(container)),
        (runtime::RESTART_COUNT_ANNOTATION.to_owned(), attempt.to_string()),
        (runtime::TERMINATION_MESSAGE_PATH_ANNOTATION.to_owned(), message_path.to_owned()),
        (runtime::TERMINATION_MESSAGE_POLICY_ANNOTATION.to_owned(), policy.to_owned()),
    ]);
    if let Some(seconds) = pod.spec().termination_grace_period_seconds {
        annotations.insert(runtime::GRACE_PERIOD_ANNOTATION.to_owned(), seconds.to_string());
    }
    annotations
}

fn bind(host_path: String, container_path: &str) -> proto::Mount {
    proto::Mount { host_path, container_path: container_path.to_owned(), ..Default::default() }
}

fn volume_mount(pod: &Pod, mount: &VolumeMount, parts: &Parts<'_>) -> Result<proto::Mount> {
    let sub_path = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(expression), _) if !expression.is_empty() => env::expand(expression, &parts.env),
        (_, Some(path)) => path.clone(),
        _ => String::new(),
    };
    if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
        let words = "must be a relative path without '..'";
        return Err(Error::InvalidPod(format!("subPath {sub_path:?} of volume {:?} {words}", mount.name)));
    }
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => proto::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => proto::MountPropagation::PropagationBidirectional,
        _ => proto::MountPropagation::PropagationPrivate,
    };
    // A relative mount path is below the root (`pkg/kubelet/kubelet_pods.go`, `makeMounts`).
    let container_path = format!("/{}", mount.mount_path.trim_start_matches('/'));
    let recursive_read_only = recursive_read_only(mount, parts.recursive_read_only)?;
    if let Some(image) = parts.volumes.images.get(&mount.name) {
        return Ok(proto::Mount {
            image: Some(image.clone()),
            image_sub_path: sub_path,
            readonly: true,
            recursive_read_only,
            propagation: propagation as i32,
            ..bind(String::new(), &container_path)
        });
    }
    let missing = || Error::InvalidPod(format!("cannot find volume {:?} to mount into container", mount.name));
    let volume = parts.volumes.paths.get(&mount.name).ok_or_else(missing)?;
    let host_path = match parts.copies.get(&mount.mount_path) {
        Some(copy) => copy.clone(),
        None if sub_path.is_empty() => volume.clone(),
        None => format!("{volume}/{sub_path}"),
    };
    let source = pod.spec().volumes.iter().flatten().find(|source| source.name == mount.name);
    let is_only_read = source.is_some_and(|source| is_written_by_kubelet(source) || is_claimed_read_only(source));
    Ok(proto::Mount {
        readonly: mount.read_only == Some(true) || is_only_read,
        recursive_read_only,
        propagation: propagation as i32,
        ..bind(host_path, &container_path)
    })
}

/// Whether what is mounted below a mount is to be read-only too (kubelet: `kubelet_pods.go`, `resolveRecursiveReadOnly`).
fn recursive_read_only(mount: &VolumeMount, supported: bool) -> Result<bool> {
    let mode = match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => return Ok(false),
        Some(mode) => mode,
    };
    let refused = |why: &str| {
        Err(Error::InvalidPod(format!(
            "failed to resolve recursive read-only mode: volume {:?} requested recursive read-only mode, but it is {why}",
            mount.name
        )))
    };
    let propagation = mount.mount_propagation.as_deref().filter(|propagation| *propagation != "None");
    match (mode, propagation) {
        _ if mount.read_only != Some(true) => refused("not read-only"),
        (_, Some(propagation)) => refused(&format!("not compatible with propagation {propagation:?}")),
        ("Enabled", None) if !supported => refused("not supported by the runtime"),
        _ => Ok(supported),
    }
}

/// Whether the pod wants a claim to be read-only in all its containers.
fn is_claimed_read_only(volume: &Volume) -> bool {
    volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true))
}

/// Whether a volume is what the API holds: containers only read it, and the kubelet replaces its files when that changes.
pub(crate) fn is_written_by_kubelet(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    context: &SecurityContext,
    pod_context: &PodSecurityContext,
    image_user: Option<&Result<i64, String>>,
) -> Result<()> {
    if context.run_as_non_root.or(pod_context.run_as_non_root) != Some(true) {
        return Ok(());
    }
    let about = format!("(pod: \"{}\", container: {})", pod.full_format(), container.name);
    match (context.run_as_user.or(pod_context.run_as_user), image_user) {
        (Some(0), _) => Err(Error::InvalidPod(format!("container's runAsUser breaks non-root policy {about}"))),
        (Some(_), _) | (None, Some(Ok(1..))) => Ok(()),
        (None, Some(Err(name))) => Err(Error::InvalidPod(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {about}"
        ))),
        (None, _) => Err(Error::InvalidPod(format!("container has runAsNonRoot and image will run as root {about}"))),
    }
}

fn linux_container(
    pod: &Pod,
    container: &Container,
    context: &SecurityContext,
    pod_context: &PodSecurityContext,
    parts: &Parts<'_>,
) -> Result<proto::LinuxContainerConfig> {
    let limits = resources::cgroup_limits(pod, container)?;
    let capabilities = context.capabilities.clone().unwrap_or_default();
    let privileged = context.privileged == Some(true);
    let masked = [
        "/proc/asound",
        "/proc/acpi",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ];
    let readonly = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    let paths = |list: &[&str]| {
        if privileged { Vec::new() } else { list.iter().map(|path| (*path).to_owned()).collect() }
    };
    let security_context = proto::LinuxContainerSecurityContext {
        capabilities: Some(proto::Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(parts.namespaces(pod)),
        run_as_user: int64(context.run_as_user.or(pod_context.run_as_user)),
        run_as_group: int64(context.run_as_group.or(pod_context.run_as_group)),
        readonly_rootfs: context.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod_context),
        supplemental_groups_policy: groups_policy(pod_context),
        no_new_privs: context.allow_privilege_escalation == Some(false),
        masked_paths: paths(&masked),
        readonly_paths: paths(&readonly),
        seccomp: seccomp(context.seccomp_profile.as_ref().or(pod_context.seccomp_profile.as_ref())),
        selinux_options: selinux(context.se_linux_options.as_ref().or(pod_context.se_linux_options.as_ref())),
        ..Default::default()
    };
    Ok(proto::LinuxContainerConfig {
        resources: Some(proto::LinuxContainerResources {
            oom_score_adj: resources::oom_score_adj(pod, container, parts.memory_capacity),
            ..linux_resources(limits)
        }),
        security_context: Some(security_context),
    })
}

/// Cgroup numbers as CRI has them.
pub fn linux_resources(limits: CgroupLimits) -> proto::LinuxContainerResources {
    proto::LinuxContainerResources {
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpu_shares: limits.cpu_shares,
        memory_limit_in_bytes: limits.memory_limit,
        ..Default::default()
    }
}

/// The pod's hosts file (`kubelet_pods.go`, `managedHostsFileContent`).
pub fn hosts_file(pod: &Pod, ips: &[String], node_name: &str, domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let host = host_name(pod, node_name);
    for ip in ips {
        match host_domain(pod, domain) {
            Some(domain) => text.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n")),
            None => text.push_str(&format!("{ip}\t{host}\n")),
        }
    }
    if let Some(aliases) = pod.spec().host_aliases.as_ref().filter(|aliases| !aliases.is_empty()) {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}
