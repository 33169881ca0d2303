//! Where log lines go: to the process's log, and to the component that wrote them, so that `kubectl logs` of a control
//! plane pod shows what that component really said.
//!
//! Lines look like klog's, which readers of Kubernetes logs know: `I1123 14:13:53.123456       1 server.rs:42] message`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minik8s_clock::Clock;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// How many lines of a component are kept in memory.
const COMPONENT_LINES: usize = 2000;
/// A log file longer than this is set aside, and the one set aside before is dropped.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Which component a tracing target belongs to: the longest prefix counts.
const COMPONENTS: [(&str, &str); 6] = [
    ("minik8s_apiserver", "kube-apiserver"),
    ("minik8s_store", "etcd"),
    ("minik8s_scheduler", "kube-scheduler"),
    ("minik8s_controllers", "kube-controller-manager"),
    ("controller", "kube-controller-manager"),
    ("minik8s_kubelet", "kubelet"),
];

/// The lines of one component.
#[derive(Default)]
pub struct ComponentLog {
    lines: Mutex<Lines>,
    grown: Notify,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<String>,
    /// How many lines were dropped before the first one kept.
    dropped: u64,
}

impl ComponentLog {
    fn push(&self, line: &str) {
        let mut lines = self.lines.lock();
        if lines.kept.len() == COMPONENT_LINES {
            lines.kept.pop_front();
            lines.dropped += 1;
        }
        lines.kept.push_back(line.to_owned());
        drop(lines);
        self.grown.notify_waiters();
    }

    /// The lines from number `from` on, as one text, and the number of the line that comes next. Waits while there are
    /// none.
    pub async fn read_from(&self, from: u64) -> (String, u64) {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            {
                let lines = self.lines.lock();
                let end = lines.dropped + lines.kept.len() as u64;
                if from < end {
                    let skip = usize::try_from(from.saturating_sub(lines.dropped)).unwrap_or(usize::MAX);
                    return (lines.kept.iter().skip(skip).map(String::as_str).collect(), end);
                }
            }
            grown.await;
        }
    }
}

/// The logs of all components of this process.
#[derive(Clone)]
pub struct Logs {
    components: Arc<BTreeMap<&'static str, Arc<ComponentLog>>>,
}

enum Sink {
    Nothing,
    Stderr,
    File { file: File, path: PathBuf, written: u64 },
}

impl Sink {
    fn write(&mut self, line: &str) {
        // A log that cannot be written has nowhere to say so.
        match self {
            Sink::Nothing => {}
            Sink::Stderr => {
                let _ = std::io::stderr().lock().write_all(line.as_bytes());
            }
            Sink::File { file, path, written } => {
                let _ = file.write_all(line.as_bytes());
                *written += line.len() as u64;
                if *written > MAX_FILE_BYTES {
                    // Standard error points into the same file, so it is emptied rather than renamed.
                    let _ = std::fs::copy(&path, path.with_extension("log.1"));
                    let _ = file.set_len(0);
                    *written = 0;
                }
            }
        }
    }
}

impl Logs {
    /// Installs the process's subscriber. Lines go to `file`, else to standard error. `MINIK8S_LOG` (`debug`,
    /// `minik8s_scheduler=trace,info`) says how much.
    pub fn install(file: Option<&Path>, clock: Clock) -> Self {
        let logs = Self::new();
        let sink = file.and_then(open).unwrap_or(Sink::Stderr);
        let layer = LineLayer { logs: logs.clone(), sink: Mutex::new(sink), clock };
        // A second subscriber (tests that start several clusters) leaves the first one in place.
        let _ = tracing_subscriber::registry().with(layer.with_filter(wanted().unwrap_or_else(usual))).try_init();
        logs
    }

    /// The logs of a cluster that lives on this thread, as long as the guard does. The components' logs always have the
    /// same lines, for they are part of what happens in the cluster; standard error has what `MINIK8S_LOG` says, else
    /// nothing.
    pub fn of_thread(clock: Clock) -> (Self, DefaultGuard) {
        let (logs, nobodys) = (Self::new(), Self { components: Arc::default() });
        let kept = LineLayer { logs: logs.clone(), sink: Mutex::new(Sink::Nothing), clock: clock.clone() };
        let shown = wanted()
            .map(|wanted| LineLayer { logs: nobodys, sink: Mutex::new(Sink::Stderr), clock }.with_filter(wanted));
        let guard = tracing_subscriber::registry().with(kept.with_filter(usual())).with(shown).set_default();
        (logs, guard)
    }

    fn new() -> Self {
        let mut components: BTreeMap<&'static str, Arc<ComponentLog>> = BTreeMap::new();
        for (_, component) in COMPONENTS {
            components.entry(component).or_default();
        }
        Self { components: Arc::new(components) }
    }

    /// The log of a component of [`COMPONENTS`]; an empty one for others.
    pub fn component(&self, name: &str) -> Arc<ComponentLog> {
        self.components.get(name).cloned().unwrap_or_default()
    }
}

fn open(path: &Path) -> Option<Sink> {
    let file = File::options().append(true).create(true).open(path).ok()?;
    let written = file.metadata().map_or(0, |meta| meta.len());
    Some(Sink::File { file, path: path.to_owned(), written })
}

/// What is logged where nobody says otherwise.
fn usual() -> Targets {
    let ours = COMPONENTS.iter().map(|(target, _)| *target).chain(["minik8s"]);
    Targets::new().with_default(Level::WARN).with_targets(ours.map(|target| (target, Level::INFO)))
}

/// What `MINIK8S_LOG` asks for.
fn wanted() -> Option<Targets> {
    std::env::var("MINIK8S_LOG").ok()?.parse().ok()
}

struct LineLayer {
    logs: Logs,
    sink: Mutex<Sink>,
    clock: Clock,
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let letter = match *meta.level() {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            Level::INFO => 'I',
            Level::DEBUG | Level::TRACE => 'D',
        };
        let stamp = self.clock.now().strftime("%m%d %H:%M:%S%.6f").to_string();
        let file = meta.file().and_then(|file| file.rsplit(['/', '\\']).next()).unwrap_or("?");
        let mut line = format!("{letter}{stamp}       1 {file}:{}]", meta.line().unwrap_or(0));
        event.record(&mut Fields(&mut line));
        line.push('\n');
        if let Some((_, component)) = COMPONENTS.iter().find(|(target, _)| meta.target().starts_with(target))
            && let Some(log) = self.logs.components.get(component)
        {
            log.push(&line);
        }
        self.sink.lock().write(&line);
    }
}

/// Writes a message and its fields, line breaks escaped.
struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {text}"),
            name => write!(self.0, " {name}={text}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn a_component_keeps_its_last_lines() {
        let log = ComponentLog::default();
        (0..COMPONENT_LINES + 10).for_each(|number| log.push(&format!("{number}\n")));
        let (text, next) = log.read_from(0).now_or_never().expect("there are lines");
        assert_eq!((text.lines().count(), text.lines().next()), (COMPONENT_LINES, Some("10")));
        assert_eq!(next as usize, COMPONENT_LINES + 10);
        assert!(log.read_from(next).now_or_never().is_none(), "there is nothing more");
    }

    #[test]
    fn a_log_file_that_grew_large_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("minik8s.log");
        let mut sink = open(&path).unwrap();
        let line = format!("{}\n", "x".repeat(1 << 20));
        (0..40).for_each(|_| sink.write(&line));
        let length = |name: &str| fs_len(&folder.path().join(name));
        assert!(length("minik8s.log") <= MAX_FILE_BYTES);
        assert!((MAX_FILE_BYTES..MAX_FILE_BYTES + (2 << 20)).contains(&length("minik8s.log.1")));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    fn fs_len(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().len()
    }
}
