//! One container, from create to exit.

use crate::fs::{ContainerFs, ImageTree, Mount};
use crate::image::PulledImage;
use crate::log::{ContainerLog, LogSink, LogStream};
use crate::process::{
    self, Cgroup, CpuMeter, ExecError, Input, Output, PIPE_BYTES, ProcessTable, Program, Signal, Spawn, User, World,
    terminal,
};
use crate::sandbox::Sandbox;
use crate::sim_runtime::SimRuntime;
use crate::{Error, Result};
use minik8s_clock::Watched;
use minik8s_cri::proto::{
    Container as CriContainer, ContainerConfig, ContainerEventType, ContainerMetadata, ContainerResources,
    ContainerState, ContainerStatus, ContainerUser, ImageSpec, LinuxContainerResources, LinuxContainerSecurityContext,
    LinuxContainerUser, NamespaceMode, Signal as CriSignal, SupplementalGroupsPolicy,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;

/// What the kernel's OOM killer leaves behind.
const OOM_KILLED: &str = "OOMKilled";
/// Exit code and reason of a container whose command could not be executed (`errorStartExitCode` of containerd).
const START_ERROR: (i32, &str) = (128, "StartError");
/// Where commands are looked for when neither image nor pod say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Labels that say that a Job owns the pod.
const JOB_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// One container.
pub(crate) struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub created_at: i64,
    pub config: ContainerConfig,
    pub log: Arc<ContainerLog>,
    pub world: Arc<World>,
    image: PulledImage,
    state: Mutex<State>,
    ended: Watched<bool>,
    stdin: tokio::sync::Mutex<Option<DuplexStream>>,
}

struct State {
    started_at: i64,
    exit: Option<Exit>,
}

impl State {
    fn to_cri(&self) -> ContainerState {
        match (&self.exit, self.started_at) {
            (Some(_), _) => ContainerState::ContainerExited,
            (None, 0) => ContainerState::ContainerCreated,
            (None, _) => ContainerState::ContainerRunning,
        }
    }
}

/// How a container ended.
#[derive(Debug, Clone)]
struct Exit {
    finished_at: i64,
    code: i32,
    reason: String,
    message: String,
}

impl Container {
    /// Prepares a container of a pulled image.
    pub fn create(runtime: &SimRuntime, sandbox: &Sandbox, config: ContainerConfig) -> Result<Container> {
        if config.metadata.is_none() {
            return Err(Error::InvalidRequest("container config must include metadata".to_string()));
        }
        let image_name = config.image.as_ref().map(|image| image.image.as_str()).unwrap_or_default();
        let image = runtime.images.require(image_name)?;
        let log_path = match (sandbox.config.log_directory.as_str(), config.log_path.as_str()) {
            ("", _) | (_, "") => String::new(),
            (directory, file) => format!("{directory}/{file}"),
        };
        let log = Arc::new(ContainerLog::new(runtime.clock.clone(), runtime.fs.clone(), log_path));
        let linux = config.linux.clone().unwrap_or_default();
        let cgroup = Cgroup::new(linux.resources.unwrap_or_default());
        let security = linux.security_context.unwrap_or_default();
        let processes = processes(runtime, sandbox, &security)?;
        let layers = std::iter::once(sandbox.files.clone()).chain(image.profile.layers.iter().cloned());
        let fs = Arc::new(ContainerFs::new(
            runtime.clock.clone(),
            runtime.fs.clone(),
            layers.collect(),
            mounts(runtime, &config)?,
            security.readonly_rootfs,
            processes.clone(),
            cgroup.clone(),
        ));
        let user = user_of(&fs, &config, &image);
        let shown = if user.name.is_empty() { user.uid.to_string() } else { user.name.clone() };
        processes.belongs_to(shown, &fs);
        let labels = &sandbox.config.labels;
        let world = World {
            clock: runtime.clock.clone(),
            random: runtime.random.fork(),
            network_admin: user.uid == 0 && may_change_network(&security),
            user,
            no_new_privileges: security.no_new_privs,
            fs,
            memory: cgroup.memory().clone(),
            cgroup,
            processes,
            network: sandbox.network.clone(),
            hostname: sandbox.hostname.clone(),
            profile: image.profile.clone(),
            version: image.version.clone(),
            job: JOB_LABELS.iter().any(|label| labels.contains_key(*label)),
            stdout: Output::new(LogSink { log: log.clone(), stream: LogStream::Stdout }),
            programs: runtime.programs.clone(),
            cpu: CpuMeter::default(),
        };
        let state = State { started_at: 0, exit: None };
        Ok(Container {
            id: runtime.new_id(),
            sandbox_id: sandbox.id.clone(),
            created_at: runtime.now_nanos(),
            config,
            log,
            world: Arc::new(world),
            image,
            state: Mutex::new(state),
            ended: Watched::new(false),
            stdin: tokio::sync::Mutex::new(None),
        })
    }

    /// Starts the container's program. When its command cannot be executed, the container has ended with that.
    pub async fn start(self: &Arc<Self>, runtime: &Arc<SimRuntime>) -> Result<()> {
        {
            let mut state = self.state.lock();
            if state.started_at != 0 || state.exit.is_some() {
                let name = cri_state_name(state.to_cri());
                return Err(Error::WrongState(format!("container {:?} is in {name} state", self.id)));
            }
            state.started_at = runtime.now_nanos();
        }
        self.log.open().map_err(|error| Error::Io(error.to_string()))?;
        let (program, args) = match self.load_command() {
            Ok(loaded) => loaded,
            Err(error) => {
                let error = Error::Start(error.to_string());
                self.state.lock().started_at = 0;
                self.finish(runtime, START_ERROR.0, START_ERROR.1, &error.to_string());
                return Err(error);
            }
        };
        let spawn = self.first_process(args).await;
        let started = self.world.processes.register(0, spawn.args.join(" "), self.world.clock.now());
        let first = started.ok_or_else(|| Error::WrongState(format!("container {:?} has processes", self.id)))?;
        runtime.events.emit(runtime, &self.sandbox_id, &self.id, ContainerEventType::ContainerStartedEvent);

        let (container, runtime_of_task) = (self.clone(), runtime.clone());
        runtime.tasks.spawn(async move {
            let world = &container.world;
            let (code, reason) = tokio::select! {
                biased;
                () = world.memory.exceeded() => (Signal::Kill.exit_code(), OOM_KILLED),
                code = process::run_registered(world, program, spawn, first) => match code {
                    0 => (0, "Completed"),
                    code => (code & 0xff, "Error"),
                },
            };
            container.finish(&runtime_of_task, code, reason, "");
        });
        Ok(())
    }

    fn load_command(&self) -> std::result::Result<(Arc<dyn Program>, Vec<String>), ExecError> {
        let (config, profile) = (&self.config, &self.image.profile);
        // WithProcessArgs of containerd: a command of the pod also puts away the image's arguments.
        let (command, args) = match (config.command.is_empty(), config.args.is_empty()) {
            (true, true) => (&profile.entrypoint, &profile.cmd),
            (true, false) => (&profile.entrypoint, &config.args),
            (false, _) => (&config.command, &config.args),
        };
        let args: Vec<String> = command.iter().chain(args).cloned().collect();
        let env = self.environment();
        self.world.load(&args, env.get("PATH").map(String::as_str), &self.working_directory())
    }

    /// The environment of the container's processes.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::from([("PATH".to_string(), PATH.to_string())]);
        let profile = &self.image.profile;
        for (name, value) in &profile.env {
            env.insert(name.clone(), value.replace("{version}", &self.world.version));
        }
        env.insert("HOSTNAME".to_string(), self.world.hostname.clone());
        let home = match self.world.user.uid {
            0 => "/root".to_string(),
            _ if self.world.user.name.is_empty() => "/".to_string(),
            _ => format!("/home/{}", self.world.user.name),
        };
        env.insert("HOME".to_string(), home);
        if self.config.tty {
            env.insert("TERM".to_string(), "xterm".to_string());
        }
        for pair in &self.config.envs {
            env.insert(pair.key.clone(), String::from_utf8_lossy(&pair.value).into_owned());
        }
        env
    }

    /// Where the container's processes start.
    pub fn working_directory(&self) -> String {
        match self.config.working_dir.as_str() {
            "" => self.image.profile.workdir.clone(),
            directory => directory.to_string(),
        }
    }

    async fn first_process(self: &Arc<Self>, args: Vec<String>) -> Spawn {
        let cwd = self.working_directory();
        if let Err(error) = self.world.fs.create_dir_all(&cwd) {
            tracing::debug!(%error, cwd, "working directory cannot be created");
        }
        let output = |stream| Output::new(LogSink { log: self.log.clone(), stream });
        let (keys, input) = tokio::io::duplex(PIPE_BYTES);
        let (stdin, stdout, stderr) = match (self.config.tty, self.config.stdin) {
            (true, _) => {
                let processes = self.world.processes.clone();
                let (stdin, screen) = terminal::open(input, output(LogStream::Stdout), move |signal| {
                    let first = processes.first();
                    if processes.signal_descendants(first, signal) == 0 {
                        processes.signal(first, signal);
                    }
                });
                (stdin, screen.clone(), screen)
            }
            (false, true) => (Input::stream(input), output(LogStream::Stdout), output(LogStream::Stderr)),
            (false, false) => (Input::empty(), output(LogStream::Stdout), output(LogStream::Stderr)),
        };
        if self.config.stdin || self.config.tty {
            *self.stdin.lock().await = Some(keys);
        }
        Spawn { args, env: self.environment(), cwd, stdin, stdout, stderr, parent: 0 }
    }

    /// Records the end, whatever it was, and ends what is left.
    fn finish(&self, runtime: &SimRuntime, code: i32, reason: &str, message: &str) {
        self.world.processes.kill_all();
        self.world.cpu.stop(self.world.clock.monotonic());
        self.log.close();
        let finished_at = runtime.now_nanos();
        self.state.lock().exit =
            Some(Exit { finished_at, code, reason: reason.to_string(), message: message.to_string() });
        if !runtime.powered_off.is_cancelled() {
            runtime.events.emit(runtime, &self.sandbox_id, &self.id, ContainerEventType::ContainerStoppedEvent);
        }
        self.ended.set(true);
    }

    /// Asks the container to end, and kills it when it has not after the grace period. Returns when it has ended.
    pub async fn stop(&self, grace: Duration) {
        if !self.is_running() {
            return;
        }
        if !grace.is_zero() {
            self.world.processes.signal(self.world.processes.first(), self.stop_signal());
            if self.world.clock.timeout(grace, self.wait()).await.is_ok() {
                return;
            }
        }
        self.kill();
        self.wait().await;
    }

    /// Kills all processes.
    pub fn kill(&self) {
        self.world.processes.kill_all();
    }

    /// Waits until the container has ended; at once when it never ran.
    pub async fn wait(&self) {
        if self.is_running() {
            // The sender lives as long as the container.
            let _ended = self.ended.watch().wait_for(|ended| *ended).await;
        }
    }

    pub fn is_running(&self) -> bool {
        let state = self.state.lock();
        state.started_at != 0 && state.exit.is_none()
    }

    fn stop_signal(&self) -> Signal {
        let named = CriSignal::try_from(self.config.stop_signal).map(|signal| signal.as_str_name().to_string());
        let asked = named.ok().and_then(|name| Signal::parse(name.strip_prefix("SIGNAL_")?));
        asked.unwrap_or(self.image.profile.stop_signal)
    }

    /// The writing end of the container's stdin, for an attached client; `None` where it has none or another has it.
    pub async fn take_stdin(&self) -> Option<DuplexStream> {
        self.stdin.lock().await.take()
    }

    /// Gives the writing end back, for the next client, unless stdin is closed after the first.
    pub async fn return_stdin(&self, stdin: DuplexStream) {
        if !self.config.stdin_once {
            *self.stdin.lock().await = Some(stdin);
        }
    }

    /// Changes limits of a running container.
    pub fn update_resources(&self, resources: &LinuxContainerResources) {
        self.world.cgroup.update(resources);
    }

    pub fn metadata(&self) -> ContainerMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    pub fn cri_state(&self) -> ContainerState {
        self.state.lock().to_cri()
    }

    pub fn to_cri(&self) -> CriContainer {
        CriContainer {
            id: self.id.clone(),
            pod_sandbox_id: self.sandbox_id.clone(),
            metadata: self.config.metadata.clone(),
            image: self.config.image.clone(),
            image_ref: self.image.id.clone(),
            state: self.cri_state() as i32,
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            image_id: self.image.id.clone(),
        }
    }

    pub fn status(&self) -> ContainerStatus {
        let state = self.state.lock();
        let exit = state.exit.clone().unwrap_or(Exit {
            finished_at: 0,
            code: 0,
            reason: String::new(),
            message: String::new(),
        });
        let user = &self.world.user;
        let linux = Some(LinuxContainerUser { uid: user.uid, gid: user.gid, supplemental_groups: user.groups.clone() });
        ContainerStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: state.to_cri() as i32,
            created_at: self.created_at,
            started_at: state.started_at,
            finished_at: exit.finished_at,
            exit_code: exit.code,
            image: Some(ImageSpec { image: self.image.name(), ..ImageSpec::default() }),
            image_ref: self.image.repo_digest.clone(),
            reason: exit.reason,
            message: exit.message,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            mounts: self.config.mounts.clone(),
            log_path: self.log.path().to_string(),
            resources: Some(ContainerResources { linux: Some(self.world.cgroup.resources()), windows: None }),
            image_id: self.image.id.clone(),
            user: Some(ContainerUser { linux }),
            stop_signal: self.config.stop_signal,
        }
    }
}

/// CRI's name of a state, as containerd's messages have it.
fn cri_state_name(state: ContainerState) -> &'static str {
    state.as_str_name()
}

/// The PID namespace that a container is to be in: one of its own, its pod's, or that of another container. The node's is
/// not simulated: there a container is alone.
fn processes(
    runtime: &SimRuntime,
    sandbox: &Sandbox,
    security: &LinuxContainerSecurityContext,
) -> Result<ProcessTable> {
    let Some(options) = &security.namespace_options else { return Ok(ProcessTable::default()) };
    match NamespaceMode::try_from(options.pid) {
        Ok(NamespaceMode::Pod) => Ok(sandbox.processes().beside()),
        Ok(NamespaceMode::Target) => {
            let target = runtime.container(&options.target_id)?;
            let state = target.state.lock().to_cri();
            match state {
                ContainerState::ContainerRunning => Ok(target.world.processes.beside()),
                _ => Err(Error::WrongState(format!(
                    "invalid target container: container {:?} is not running - in state {}",
                    target.id,
                    state.as_str_name()
                ))),
            }
        }
        _ => Ok(ProcessTable::default()),
    }
}

fn mounts(runtime: &SimRuntime, config: &ContainerConfig) -> Result<Vec<Mount>> {
    let mount = |mount: &minik8s_cri::proto::Mount| {
        Ok(Mount {
            container_path: mount.container_path.clone(),
            host_path: mount.host_path.clone(),
            image: mount.image.as_ref().map(|image| image_tree(runtime, mount, &image.image)).transpose()?,
            read_only: mount.readonly || mount.image.is_some(),
        })
    };
    config.mounts.iter().map(mount).collect()
}

/// What an image volume shows: the image, or one of its directories.
fn image_tree(runtime: &SimRuntime, mount: &minik8s_cri::proto::Mount, image: &str) -> Result<ImageTree> {
    let refused = |why: &str| Error::InvalidRequest(format!("failed to mount image volume {image:?}: {why}"));
    if !mount.host_path.is_empty() {
        return Err(refused("hostpath must be empty while mount image"));
    }
    let layers = runtime.images.require(image)?.profile.layers.clone();
    let sub_path = &mount.image_sub_path;
    ImageTree::new(layers, &format!("/{sub_path}")).ok_or_else(|| refused(&format!("no {sub_path:?} in it")))
}

/// Whether root in the container has `CAP_NET_ADMIN`, which runtimes give no container unasked.
fn may_change_network(security: &LinuxContainerSecurityContext) -> bool {
    let has = |list: &[String]| list.iter().any(|name| ["ALL", "NET_ADMIN"].contains(&name.trim_start_matches("CAP_")));
    let asked = security.capabilities.as_ref();
    security.privileged || asked.is_some_and(|asked| has(&asked.add_capabilities))
}

/// Who the container runs as: what the pod says, else what the image says, looked up in the image's `/etc/passwd`.
fn user_of(fs: &ContainerFs, config: &ContainerConfig, image: &PulledImage) -> User {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default();
    let image_user = image.profile.user.as_deref().unwrap_or("0");
    let asked = match (&security.run_as_user, security.run_as_username.as_str()) {
        (Some(uid), _) => uid.value.to_string(),
        (None, "") => image_user.to_string(),
        (None, name) => name.to_string(),
    };
    let (user, group) = asked.split_once(':').unwrap_or((&asked, ""));
    let passwd = fs.read("/etc/passwd").unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd).into_owned();
    let row = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|row| row.len() > 3 && (row[0] == user || row[2] == user));
    let number = |index: usize| row.as_ref().and_then(|row| row[index].parse::<i64>().ok());
    let uid = user.parse().ok().or_else(|| number(2)).unwrap_or(0);
    let gid = security.run_as_group.map(|gid| gid.value).or_else(|| group.parse().ok()).or_else(|| number(3));
    let gid = gid.unwrap_or(0);
    let name = row.map(|row| row[0].to_string()).unwrap_or_default();
    let mut groups: Vec<i64> = std::iter::once(gid).chain(security.supplemental_groups).collect();
    if security.supplemental_groups_policy != SupplementalGroupsPolicy::Strict as i32 {
        groups
            .extend(groups_in_image(fs, &name).into_iter().filter(|group| !groups.contains(group)).collect::<Vec<_>>());
    }
    User { uid, gid, groups, name }
}

/// The groups that the image's `/etc/group` lists a user in.
fn groups_in_image(fs: &ContainerFs, user: &str) -> Vec<i64> {
    let text = fs.read("/etc/group").unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let rows = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let members = |row: &Vec<&str>| !user.is_empty() && row.len() > 3 && row[3].split(',').any(|member| member == user);
    rows.filter(members).filter_map(|row| row[2].parse().ok()).collect()
}
