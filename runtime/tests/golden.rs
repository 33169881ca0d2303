//! Golden scripts for the shell (`testscripts/shell`) and for CRI (`testscripts/lifecycle`), on a simulated clock.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p minik8s-runtime` writes what is answered now; read the difference.

use goldenscript::{Command, Context};
use minik8s_clock::{Clock, Random};
use minik8s_cri::proto::*;
use minik8s_cri::{Client, MemoryFs, NodeFs};
use minik8s_runtime::image::Profiles;
use minik8s_runtime::{SimConfig, SimRuntime, Unreachable};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

type Answer = Result<String, Box<dyn Error>>;

/// One simulated node. Time moves on by itself while a command waits for something, and stands still in between.
struct Node {
    tokio: tokio::runtime::Runtime,
    clock: Clock,
    fs: Arc<MemoryFs>,
    client: Client,
    events: Option<tonic::Streaming<ContainerEventResponse>>,
    /// Sandboxes and containers by the names that scripts use.
    ids: BTreeMap<String, String>,
    configs: BTreeMap<String, PodSandboxConfig>,
}

impl Node {
    fn new() -> Node {
        let (clock, simulation) = Clock::simulated("2026-01-01T00:00:00Z".parse().expect("a time"));
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_park(move || {
                simulation.advance_to_next();
            })
            .build()
            .expect("a runtime");
        let fs = Arc::new(MemoryFs::new(clock.clone(), 64 << 20));
        let runtime = SimRuntime::new(SimConfig {
            node_name: "node-1".to_string(),
            clock: clock.clone(),
            random: Random::seeded(1),
            fs: fs.clone(),
            profiles: Profiles::builtin(),
            host_programs: BTreeMap::new(),
            network: Arc::new(Unreachable),
            preloaded_images: Vec::new(),
        });
        let client = Client::in_process(runtime.expect("a valid configuration"));
        tokio.block_on(client.update_pod_cidr("10.128.3.0/24")).expect("a CIDR");
        Node { tokio, clock, fs, client, events: None, ids: BTreeMap::new(), configs: BTreeMap::new() }
    }

    fn id(&self, name: &str) -> Result<String, String> {
        self.ids.get(name).cloned().ok_or_else(|| format!("no {name}"))
    }

    /// Hides ids, which no reader of a script can tell apart.
    fn readable(&self, text: &str) -> String {
        let named = self.ids.iter().fold(text.to_string(), |text, (name, id)| text.replace(id, &format!("<{name}>")));
        let mut out = String::new();
        let mut hex = String::new();
        for character in named.chars().chain(['\n']) {
            if character.is_ascii_hexdigit() && !character.is_ascii_uppercase() {
                hex.push(character);
                continue;
            }
            out += if hex.len() == 64 { "<id>" } else { &hex };
            hex.clear();
            out.push(character);
        }
        out.pop();
        out
    }

    fn run_sandbox(&mut self, name: &str, labels: BTreeMap<String, String>, handler: &str) -> Answer {
        let metadata = PodSandboxMetadata {
            name: name.to_string(),
            uid: format!("uid-{name}"),
            namespace: "default".to_string(),
            attempt: 0,
        };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            hostname: name.to_string(),
            log_directory: format!("/var/log/pods/default_{name}"),
            labels,
            ..PodSandboxConfig::default()
        };
        let id = self.tokio.block_on(self.client.run_pod_sandbox(config.clone(), handler))?;
        self.ids.insert(name.to_string(), id);
        self.configs.insert(name.to_string(), config);
        Ok(String::new())
    }

    fn create(
        &mut self,
        pod: &str,
        name: &str,
        image: &str,
        command: Vec<String>,
        memory: i64,
        more: ContainerConfig,
    ) -> Answer {
        let linux = LinuxContainerConfig {
            resources: Some(LinuxContainerResources { memory_limit_in_bytes: memory, ..Default::default() }),
            ..more.linux.clone().unwrap_or_default()
        };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_string(), attempt: 0 }),
            image: Some(ImageSpec { image: image.to_string(), ..Default::default() }),
            command,
            log_path: format!("{name}/0.log"),
            linux: Some(linux),
            ..more
        };
        let sandbox_config = self.configs.get(pod).cloned().unwrap_or_default();
        let sandbox = self.id(pod)?;
        let id = self.tokio.block_on(self.client.create_container(&sandbox, config, sandbox_config))?;
        self.ids.insert(name.to_string(), id);
        Ok(String::new())
    }

    /// The namespaces of a container that shares its processes with its pod, or with another container.
    fn pid_of(&self, of: &str) -> Result<NamespaceOption, String> {
        let (mode, target_id) = match of {
            "pod" => (NamespaceMode::Pod, String::new()),
            target => (NamespaceMode::Target, self.id(target)?),
        };
        Ok(NamespaceOption { pid: mode as i32, target_id, ..Default::default() })
    }

    fn exec(&self, container: &str, command: Vec<String>, timeout: i64) -> Answer {
        let id = self.id(container)?;
        let result = self.tokio.block_on(self.client.exec_sync(&id, command, timeout))?;
        let mut text = String::from_utf8_lossy(&result.stdout).into_owned();
        for line in String::from_utf8_lossy(&result.stderr).lines() {
            writeln!(text, "2> {line}")?;
        }
        if result.exit_code != 0 {
            writeln!(text, "exit {}", result.exit_code)?;
        }
        Ok(text)
    }

    fn seconds(&self, nanos: i64) -> f64 {
        (nanos as f64) / 1e9 - 1_767_225_600.0
    }

    fn status(&self, name: &str) -> Answer {
        let status = self.tokio.block_on(self.client.container_status(&self.id(name)?))?;
        let state = ContainerState::try_from(status.state)?.as_str_name();
        let mut text = state.to_string();
        if status.started_at != 0 {
            write!(text, " started={:.3}s", self.seconds(status.started_at))?;
        }
        if status.finished_at != 0 {
            write!(
                text,
                " finished={:.3}s exit={} reason={}",
                self.seconds(status.finished_at),
                status.exit_code,
                status.reason
            )?;
        }
        if !status.message.is_empty() {
            write!(text, "\nmessage={}", status.message)?;
        }
        Ok(text)
    }

    fn next_events(&mut self) -> Answer {
        let Some(events) = self.events.as_mut() else { return Err("no events asked for".into()) };
        let clock = self.clock.clone();
        let mut text = String::new();
        while let Ok(Ok(Some(event))) = self.tokio.block_on(clock.timeout(Duration::from_millis(1), events.message())) {
            let kind = event.container_event_type().as_str_name();
            let states: Vec<&str> =
                event.containers_statuses.iter().map(|status| status.state().as_str_name()).collect();
            writeln!(text, "{kind} {} [{}]", event.container_id, states.join(" "))?;
        }
        Ok(text)
    }
}

impl goldenscript::Runner for Node {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Answer {
        match self.answer(command, context) {
            Ok(text) => Ok(self.readable(&text)),
            Err(error) => Err(self.readable(&error.to_string()).into()),
        }
    }
}

impl Node {
    fn answer(&mut self, command: &Command, context: &Context) -> Answer {
        let mut args = command.consume_args();
        let answer = match command.name.as_str() {
            "advance" => {
                let seconds: f64 = args.next_pos().ok_or("how long?")?.parse()?;
                self.tokio.block_on(self.clock.sleep(Duration::from_secs_f64(seconds)));
                Ok(String::new())
            }
            "pull" => {
                let image = args.next_pos().ok_or("which image?")?.to_string();
                let spec = ImageSpec { image, ..Default::default() };
                let pulled = self.tokio.block_on(self.client.pull_image(spec.clone(), None, None))?;
                let found = self.tokio.block_on(self.client.image_status(spec))?.ok_or("pulled, but not there")?;
                assert_eq!(found.id, pulled);
                Ok(format!(
                    "{} size={} at {:.2}s",
                    found.repo_tags.join(","),
                    found.size,
                    self.clock.monotonic().as_secs_f64()
                ))
            }
            "images" => {
                let images = self.tokio.block_on(self.client.list_images())?;
                Ok(images.iter().map(|image| format!("{}\n", image.repo_tags.join(","))).collect())
            }
            "sandbox" => {
                let name = args.next_pos().ok_or("which sandbox?")?.to_string();
                let labels = args.take_key("job").into_iter().map(|job| ("job-name".to_string(), job.to_string()));
                let labels = labels.collect();
                let handler = args.take_key("handler").unwrap_or_default().to_string();
                self.run_sandbox(&name, labels, &handler)
            }
            "sandbox-status" => {
                let id = self.id(args.next_pos().ok_or("which sandbox?")?)?;
                let status = self.tokio.block_on(self.client.pod_sandbox_status(&id))?.status.unwrap_or_default();
                Ok(format!("{} ip={}", status.state().as_str_name(), status.network.unwrap_or_default().ip))
            }
            "create" => {
                let pod = args.next_pos().ok_or("which sandbox?")?.to_string();
                let name = args.next_pos().ok_or("which name?")?.to_string();
                let image = args.next_pos().ok_or("which image?")?.to_string();
                let memory = args.take_key("memory").map(str::parse).transpose()?.unwrap_or(0);
                let privileged = args.take_key("privileged").map(str::parse).transpose()?.unwrap_or(false);
                let namespace_options = args.take_key("pid").map(|of| self.pid_of(of)).transpose()?;
                let security = LinuxContainerSecurityContext { privileged, namespace_options, ..Default::default() };
                let linux = LinuxContainerConfig { security_context: Some(security), ..Default::default() };
                let mounts = args.take_key("mount").and_then(|mount| {
                    mount.split_once(':').map(|(host, container)| Mount {
                        host_path: host.to_string(),
                        container_path: container.to_string(),
                        ..Default::default()
                    })
                });
                // An image as a volume, and what of it.
                let image_mount = args.take_key("image-volume").map(|image| Mount {
                    container_path: "/volume".to_string(),
                    image: Some(ImageSpec { image: image.to_string(), ..Default::default() }),
                    image_sub_path: args.take_key("sub-path").unwrap_or_default().to_string(),
                    readonly: true,
                    ..Default::default()
                });
                let mounts = mounts.into_iter().chain(image_mount).collect();
                let envs = args.take_key("env").unwrap_or_default().split(',').filter_map(|pair| pair.split_once('='));
                let envs = envs.map(|(key, value)| KeyValue { key: key.to_string(), value: value.into() }).collect();
                let command = std::iter::from_fn(|| args.next_pos()).map(str::to_string).collect();
                self.create(
                    &pod,
                    &name,
                    &image,
                    command,
                    memory,
                    ContainerConfig { mounts, envs, linux: Some(linux), ..Default::default() },
                )
            }
            "tmpfs" => {
                self.fs.create_tmpfs(args.next_pos().ok_or("which directory?")?)?;
                Ok(String::new())
            }
            "write" => {
                let path = args.next_pos().ok_or("which file?")?.to_string();
                let text = args.next_pos().ok_or("which text?")?.to_string();
                self.fs.create_dir_all(minik8s_cri::parent(&path))?;
                self.fs.write(&path, text.as_bytes())?;
                Ok(String::new())
            }
            "start" => {
                let id = self.id(args.next_pos().ok_or("which container?")?)?;
                self.tokio.block_on(self.client.start_container(&id))?;
                Ok(String::new())
            }
            // Other limits of a container: `memory`, `quota`, `shares`.
            "update" => {
                let id = self.id(args.next_pos().ok_or("which container?")?)?;
                let mut amount = |name: &str| args.take_key(name).map_or(Ok(0), str::parse);
                let linux = LinuxContainerResources {
                    memory_limit_in_bytes: amount("memory")?,
                    cpu_quota: amount("quota")?,
                    cpu_shares: amount("shares")?,
                    cpu_period: 100_000,
                    ..Default::default()
                };
                self.tokio.block_on(self.client.update_container_resources(&id, linux))?;
                Ok(String::new())
            }
            "stop" => {
                let id = self.id(args.next_pos().ok_or("which container?")?)?;
                let grace = args.next_pos().map_or(Ok(30), str::parse)?;
                self.tokio.block_on(self.client.stop_container(&id, grace))?;
                Ok(String::new())
            }
            "remove" => {
                let id = self.id(args.next_pos().ok_or("which container?")?)?;
                self.tokio.block_on(self.client.remove_container(&id))?;
                Ok(String::new())
            }
            "stop-sandbox" => {
                let id = self.id(args.next_pos().ok_or("which sandbox?")?)?;
                self.tokio.block_on(self.client.stop_pod_sandbox(&id))?;
                Ok(String::new())
            }
            "status" => self.status(args.next_pos().ok_or("which container?")?),
            "stats" => {
                let id = self.id(args.next_pos().ok_or("which container?")?)?;
                let stats = self.tokio.block_on(self.client.container_stats(&id))?;
                let cpu = stats.cpu.and_then(|cpu| cpu.usage_nano_cores).map_or(0, |value| value.value);
                let memory = stats.memory.and_then(|memory| memory.working_set_bytes).map_or(0, |value| value.value);
                Ok(format!("cpu={cpu}n memory={memory}"))
            }
            "log" => {
                let path = args.next_pos().ok_or("which file?")?.to_string();
                Ok(String::from_utf8_lossy(&self.fs.read(&format!("/var/log/pods/{path}"))?).into_owned())
            }
            "events" => match self.events {
                Some(_) => self.next_events(),
                None => {
                    self.events = Some(self.tokio.block_on(self.client.container_events())?);
                    Ok(String::new())
                }
            },
            "exec" => {
                let container = args.next_pos().ok_or("which container?")?.to_string();
                let timeout = args.take_key("timeout").map(str::parse).transpose()?.unwrap_or(0);
                let command = std::iter::from_fn(|| args.next_pos()).map(str::to_string).collect();
                self.exec(&container, command, timeout)
            }
            // A container that only waits, for lines that begin with `>`.
            "box" => {
                let image = args.next_pos().ok_or("which image?")?.to_string();
                let spec = ImageSpec { image: image.clone(), ..Default::default() };
                self.tokio.block_on(self.client.pull_image(spec, None, None))?;
                self.run_sandbox("pod", BTreeMap::new(), "")?;
                let command = vec!["sleep".to_string(), "infinity".to_string()];
                self.create(
                    "pod",
                    "box",
                    &image,
                    command,
                    args.take_key("memory").map(str::parse).transpose()?.unwrap_or(0),
                    ContainerConfig::default(),
                )?;
                self.tokio.block_on(self.client.start_container(&self.id("box")?))?;
                Ok(String::new())
            }
            script if self.ids.contains_key("box") => {
                let shell = context.prefix.clone().unwrap_or_else(|| "sh".to_string());
                self.exec("box", vec![shell, "-c".to_string(), script.to_string()], 0)
            }
            other => return Err(format!("unknown command {other}").into()),
        };
        args.reject_next()?;
        answer
    }
}

fn run_folder(folder: &str) {
    let folder = format!("{}/testscripts/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> =
        std::fs::read_dir(&folder).expect("a folder of scripts").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {folder}");
    for path in paths {
        if let Err(error) = goldenscript::run(&mut Node::new(), &path) {
            panic!("{}: {error}", path.display());
        }
    }
}

#[test]
fn shell() {
    run_folder("shell");
}

#[test]
fn lifecycle() {
    run_folder("lifecycle");
}
