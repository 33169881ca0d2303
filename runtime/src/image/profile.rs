//! What an image does, as data.
//!
//! A profile names repositories and the tags they have, says what an image of them contains, and describes its main programs
//! as [`Scripted`] ones: what they print, where they listen, how they end. The files in `profiles/` come with the binary.

use super::Reference;
use super::layers::{Base, Toolset};
use super::units;
use crate::fs::{Layer, LayerNode};
use crate::process::{Signal, World};
use crate::{Error, Result, pattern};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const BUILTIN: [(&str, &str); 7] = [
    ("web.yaml", include_str!("../../profiles/web.yaml")),
    ("databases.yaml", include_str!("../../profiles/databases.yaml")),
    ("systems.yaml", include_str!("../../profiles/systems.yaml")),
    ("languages.yaml", include_str!("../../profiles/languages.yaml")),
    ("kubernetes.yaml", include_str!("../../profiles/kubernetes.yaml")),
    ("operations.yaml", include_str!("../../profiles/operations.yaml")),
    ("unknown.yaml", include_str!("../../profiles/unknown.yaml")),
];

/// A profile as a file states it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileSource {
    /// Repositories, with patterns: `registry.k8s.io/kube-*`.
    repositories: Vec<String>,
    /// Tags that exist, as patterns.
    #[serde(default = "any")]
    tags: Vec<String>,
    /// What the registry answers instead of an image.
    #[serde(default)]
    refused: Option<Refusal>,
    /// The version of images whose tag names none.
    #[serde(default)]
    version: String,
    #[serde(default, deserialize_with = "units::bytes")]
    size: u64,
    /// How long a pull takes; by size where it is not given.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pull: Option<Duration>,
    #[serde(default)]
    base: Base,
    /// Images that differ by tag in base and size.
    #[serde(default)]
    variants: Vec<Variant>,
    /// Programs that the image has besides those of its base.
    #[serde(default)]
    commands: Vec<String>,
    /// Programs at other paths than `/usr/bin`: by path, the program's name.
    #[serde(default)]
    executables: BTreeMap<String, String>,
    /// Directories that the image has besides those of its files.
    #[serde(default)]
    directories: Vec<String>,
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    cmd: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    workdir: Option<String>,
    /// User name or number, and group number: `101:101`, `nobody`.
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    stop_signal: Option<String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    programs: BTreeMap<String, Scripted>,
    /// Whether commands that the image is not known to have are its main program under another name.
    #[serde(default)]
    any_command: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    tags: Vec<String>,
    #[serde(default)]
    base: Option<Base>,
    #[serde(default, deserialize_with = "units::bytes")]
    size: u64,
}

/// Why a registry does not hand out an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Refusal {
    /// There is no such repository, or it is private: registries do not tell which.
    Denied,
    /// There is no such host.
    NoSuchHost,
}

fn any() -> Vec<String> {
    vec!["*".to_string()]
}

/// A program described by data: it prints, listens, uses memory, and ends when it is told to.
///
/// Texts may hold `{version}`, `{hostname}`, `{pid}`, `{ip}`, `{args}`, `{env:NAME}` and `{date:FORMAT}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scripted {
    /// Where the executable lies.
    pub paths: Vec<String>,
    /// Calls that only print and end; the first that matches decides.
    pub invocations: Vec<Invocation>,
    /// What must be set in the environment.
    pub requires: Vec<Requirement>,
    /// What it prints when it starts.
    pub start: Vec<LogLine>,
    /// What it prints again and again.
    pub every: Vec<LogLine>,
    /// Ports it listens on.
    pub listen: Vec<u16>,
    /// Environment variables that name a port to listen on instead.
    pub listen_env: Vec<String>,
    /// Options that name a port to listen on instead: `--port`, `-listen`.
    pub listen_options: Vec<String>,
    /// Whether it listens on the ports that the pod declares.
    pub listen_declared: bool,
    /// What it answers over HTTP; without it connections are accepted and left open.
    pub http: Option<HttpServer>,
    /// Memory it holds.
    #[serde(deserialize_with = "units::bytes")]
    pub memory: u64,
    /// Memory it holds later.
    pub memory_steps: Vec<MemoryStep>,
    /// Processor it uses on average, in thousandths.
    #[serde(deserialize_with = "units::millicores")]
    pub cpu: u64,
    /// Ends by itself after this time.
    #[serde(deserialize_with = "units::optional_duration")]
    pub ends_after: Option<Duration>,
    /// Ends by itself after this time in the pod of a Job.
    #[serde(deserialize_with = "units::optional_duration")]
    pub job_ends_after: Option<Duration>,
    /// The exit code when it ends by itself.
    pub exit: i32,
    /// What it prints before it ends by itself.
    pub finish: Vec<LogLine>,
    /// Signals it handles.
    pub stop: BTreeMap<String, StopAnswer>,
}

/// A call that only prints and ends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invocation {
    /// Patterns of the arguments, one each; `...` at the end stands for any that follow.
    pub args: Vec<String>,
    /// Printed to standard output.
    #[serde(default)]
    pub stdout: String,
    /// Printed to standard error.
    #[serde(default)]
    pub stderr: String,
    /// The exit code.
    #[serde(default)]
    pub exit: i32,
}

/// Environment variables of which one must be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Their names.
    pub any_of: Vec<String>,
    /// Said on standard error when none is set.
    pub message: String,
    /// The exit code then.
    pub exit: i32,
}

/// A line of a log.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogLine {
    /// How long after the line before it (or, in `every`, after itself).
    #[serde(deserialize_with = "units::optional_duration")]
    pub after: Option<Duration>,
    /// Printed to standard output.
    pub stdout: Option<String>,
    /// Printed to standard error.
    pub stderr: Option<String>,
}

/// A change of the memory held.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryStep {
    /// How long after the start.
    #[serde(deserialize_with = "units::duration")]
    pub after: Duration,
    /// Bytes held from then on.
    #[serde(deserialize_with = "units::bytes")]
    pub memory: u64,
}

/// What a program does when a signal asks it to end.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StopAnswer {
    /// How long it takes.
    #[serde(deserialize_with = "units::optional_duration")]
    pub after: Option<Duration>,
    /// What it prints meanwhile.
    pub lines: Vec<LogLine>,
    /// The exit code; `None` for a signal that does not end it.
    pub exit: Option<i32>,
}

/// An HTTP server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpServer {
    /// A directory of the container whose files are served.
    pub root: Option<String>,
    /// Answers by path, with patterns.
    pub paths: Vec<(String, HttpAnswer)>,
    /// The answer to everything else; 404 without it.
    pub default: Option<HttpAnswer>,
    /// The value of the header `Server`.
    pub server: Option<String>,
    /// The line written for each request; also knows `{method} {path} {status} {bytes} {agent}`.
    pub access_log: Option<String>,
}

/// An answer over HTTP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// Body; knows `{method}`, `{path}` and `{headers}` too.
    pub body: String,
}

impl Default for HttpAnswer {
    fn default() -> HttpAnswer {
        HttpAnswer { status: 200, content_type: "text/plain".to_string(), body: String::new() }
    }
}

/// What containers of an image are made of.
#[derive(Debug)]
pub struct ImageProfile {
    /// Read-only files, from the top.
    pub layers: Vec<Arc<Layer>>,
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// Arguments where the pod gives none.
    pub cmd: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub workdir: String,
    /// User name or number, and group.
    pub user: Option<String>,
    /// What `StopContainer` sends first.
    pub stop_signal: Signal,
    /// Programs by name.
    pub programs: BTreeMap<String, Arc<Scripted>>,
    /// Whether a command that is not in the image is taken for its main program.
    pub any_command: bool,
    /// Whether its tools are GNU's, who word some errors differently from busybox.
    pub gnu: bool,
    /// Size in bytes.
    pub size: u64,
    version: String,
    pull: Option<Duration>,
}

struct Entry {
    source: ProfileSource,
    plain: Arc<ImageProfile>,
    variants: Vec<(Vec<String>, Arc<ImageProfile>)>,
}

/// All profiles, in order; the first that names a repository decides.
pub struct Profiles {
    entries: Vec<Entry>,
}

/// An image that a registry has.
#[derive(Debug, Clone)]
pub(crate) struct Available {
    pub profile: Arc<ImageProfile>,
    pub version: String,
    pub pull: Duration,
}

/// How long a pull takes besides the transfer, and how fast the transfer is.
const PULL_BASE: Duration = Duration::from_millis(60);
const PULL_BYTES_PER_SECOND: f64 = 200_000_000.0;

impl Profiles {
    /// The profiles that come with the binary, read once a process.
    pub fn builtin() -> Arc<Profiles> {
        static PROFILES: LazyLock<Arc<Profiles>> = LazyLock::new(|| {
            let files = BUILTIN.iter().map(|(name, text)| (*name, *text));
            Arc::new(Profiles::read(files).expect("the profiles in profiles/ are valid"))
        });
        PROFILES.clone()
    }

    /// Profiles of one's own (YAML, a list), which come before those of the binary.
    pub fn with(own: &[(&str, &str)]) -> Result<Profiles> {
        Profiles::read(own.iter().copied().chain(BUILTIN))
    }

    fn read<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Profiles> {
        let mut toolset = Toolset::default();
        let mut entries = Vec::new();
        for (name, text) in files {
            let invalid = |message: String| Error::InvalidProfile { file: name.to_string(), message };
            let sources: Vec<ProfileSource> = serde_yaml::from_str(text).map_err(|error| invalid(error.to_string()))?;
            for source in sources {
                let base = source.base;
                let plain = Arc::new(source.build(base, source.size, &mut toolset).map_err(invalid)?);
                let variants = source.variants.iter().map(|variant| {
                    let profile = source.build(variant.base.unwrap_or(base), variant.size, &mut toolset);
                    profile.map(|profile| (variant.tags.clone(), Arc::new(profile)))
                });
                let variants = variants.collect::<Result<_, _>>().map_err(invalid)?;
                entries.push(Entry { plain, variants, source });
            }
        }
        Ok(Profiles { entries })
    }

    /// What a registry answers to a pull, in containerd's words.
    pub(crate) fn resolve(&self, reference: &Reference) -> Result<Available> {
        let refused = |reason: String| Error::PullRefused { image: reference.to_string(), reason };
        let known = |entry: &&Entry| {
            entry.source.repositories.iter().any(|pattern| pattern::matches(pattern, &reference.repository))
        };
        let entry = self.entries.iter().find(known).ok_or_else(|| {
            // `profiles/unknown.yaml` ends with a profile for all; a set of profiles without one has nothing else to say.
            Error::ImageNotFound { image: reference.to_string() }
        })?;
        let host = reference.host();
        match entry.source.refused {
            Some(Refusal::Denied) => {
                return Err(refused(
                    "pull access denied, repository does not exist or may require authorization: server message: \
                     insufficient_scope: authorization failed"
                        .to_string(),
                ));
            }
            Some(Refusal::NoSuchHost) => {
                let path = reference.path();
                let tag = reference.tag.as_deref().unwrap_or_default();
                let request = format!("\"https://{host}/v2/{path}/manifests/{tag}\"");
                return Err(refused(format!(
                    "failed to do request: Head {request}: dial tcp: lookup {host}: no such host"
                )));
            }
            None => {}
        }
        let tag = reference.tag.as_deref().unwrap_or("latest");
        if reference.digest.is_none() && !entry.source.tags.iter().any(|pattern| pattern::matches(pattern, tag)) {
            return Err(Error::ImageNotFound { image: reference.to_string() });
        }
        let variant = entry.variants.iter().find(|(tags, _)| tags.iter().any(|pattern| pattern::matches(pattern, tag)));
        let profile = variant.map_or(&entry.plain, |(_, profile)| profile).clone();
        let version = version_of(tag).unwrap_or(&profile.version).to_string();
        let transfer = Duration::from_secs_f64(profile.size as f64 / PULL_BYTES_PER_SECOND);
        let pull = profile.pull.unwrap_or(PULL_BASE + transfer);
        Ok(Available { profile, version, pull })
    }
}

/// The version that a tag begins with: `1.27-alpine` is 1.27, `v3.0` is 3.0.
fn version_of(tag: &str) -> Option<&str> {
    let text = tag.strip_prefix('v').unwrap_or(tag);
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    Some(text[..end].trim_end_matches('.')).filter(|version| !version.is_empty())
}

impl ProfileSource {
    fn build(&self, base: Base, size: u64, toolset: &mut Toolset) -> Result<ImageProfile, String> {
        let mut own = Layer::default();
        for (path, text) in &self.files {
            // Scripts are told from other files by their first line.
            let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
            own.add(path, LayerNode::File(text.clone().into(), mode));
        }
        for command in &self.commands {
            own.add(&format!("/usr/bin/{command}"), super::layers::executable(command));
        }
        for (path, program) in &self.executables {
            own.add(path, super::layers::executable(program));
        }
        self.directories.iter().for_each(|path| own.add_directory(path));
        for (name, program) in &self.programs {
            for path in &program.paths {
                own.add(path, super::layers::executable(name));
            }
            if program.every.iter().any(|line| line.after.is_none_or(|after| after.is_zero())) {
                return Err(format!("{name}: a line of `every` says after what time it comes again"));
            }
            if let Some(signal) = program.stop.keys().find(|signal| Signal::parse(signal).is_none()) {
                return Err(format!("{signal:?} is no signal"));
            }
        }
        if let Some(workdir) = &self.workdir {
            own.add_directory(workdir);
        }
        let stop_signal = self.stop_signal.as_deref().unwrap_or("TERM");
        let layers = std::iter::once(Arc::new(own)).chain(toolset.layers(base)).collect();
        Ok(ImageProfile {
            layers,
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            env: self.env.clone(),
            workdir: self.workdir.clone().unwrap_or_else(|| "/".to_string()),
            user: self.user.clone(),
            stop_signal: Signal::parse(stop_signal).ok_or_else(|| format!("{stop_signal:?} is no signal"))?,
            programs: self.programs.iter().map(|(name, program)| (name.clone(), Arc::new(program.clone()))).collect(),
            any_command: self.any_command,
            gnu: base == Base::Debian,
            size: size.max(self.files.values().map(|text| text.len() as u64).sum()),
            version: self.version.clone(),
            pull: self.pull,
        })
    }
}

/// Fills in the parts of a text that are in braces and known; all else stands as it is written.
pub(crate) fn render(text: &str, world: &World, env: &BTreeMap<String, String>, more: &[(&str, &str)]) -> String {
    let mut rendered = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        rendered.push_str(&rest[..open]);
        rest = &rest[open..];
        let name = rest.find('}').map(|close| &rest[1..close]);
        match name.and_then(|name| value_of(name, world, env, more).map(|value| (name, value))) {
            Some((name, value)) => {
                rendered.push_str(&value);
                rest = &rest[name.len() + 2..];
            }
            None => {
                rendered.push('{');
                rest = &rest[1..];
            }
        }
    }
    rendered + rest
}

fn value_of(name: &str, world: &World, env: &BTreeMap<String, String>, more: &[(&str, &str)]) -> Option<String> {
    if let Some((_, value)) = more.iter().find(|(known, _)| *known == name) {
        return Some(value.to_string());
    }
    if let Some(variable) = name.strip_prefix("env:") {
        return Some(env.get(variable).cloned().unwrap_or_default());
    }
    if let Some(format) = name.strip_prefix("date:") {
        let now = world.clock.now().to_zoned(jiff::tz::TimeZone::UTC);
        return Some(now.strftime(format).to_string());
    }
    match name {
        "version" => Some(world.version.clone()),
        "hostname" => Some(world.hostname.clone()),
        "ip" => Some(world.network.ip.map_or_else(|| "127.0.0.1".to_string(), |ip| ip.to_string())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(name: &str) -> String {
        let reference = Reference::parse(name).expect("a valid name");
        match Profiles::builtin().resolve(&reference) {
            Ok(available) => format!("{} {}", available.version, available.profile.cmd.join(" ")),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_profiles_of_the_binary_are_read() {
        assert_eq!(resolve("nginx:1.27-alpine"), "1.27 nginx -g daemon off;");
        assert!(resolve("somebody/app:v3").starts_with('3'));
    }

    #[test]
    fn registries_refuse_in_containerds_words() {
        assert_eq!(
            resolve("nginx:nonexistent"),
            "failed to pull and unpack image \"docker.io/library/nginx:nonexistent\": failed to resolve reference \
             \"docker.io/library/nginx:nonexistent\": docker.io/library/nginx:nonexistent: not found"
        );
        assert_eq!(
            resolve("registry.example.com/app:1"),
            "failed to pull and unpack image \"registry.example.com/app:1\": failed to resolve reference \
             \"registry.example.com/app:1\": failed to do request: Head \
             \"https://registry.example.com/v2/app/manifests/1\": dial tcp: lookup registry.example.com: no such host"
        );
    }
}
