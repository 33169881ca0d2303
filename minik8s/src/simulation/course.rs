//! What happened in a simulated cluster: every change of the store, to be compared with those of another run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use minik8s_clock::Clock;
use minik8s_store::{Error, Event, EventKind, INITIAL_REVISION, Store, Watch, WatchMessage};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

/// How many changes before the first difference are told.
const TOLD_BEFORE: usize = 5;
/// How many bytes of two values are told on each side of their first difference.
const TOLD_AROUND: usize = 80;

/// All changes of a cluster from its first on. Two courses are the same when every byte is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// In the order in which they happened.
    pub changes: Vec<Change>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Of the whole store.
    pub revision: u64,
    /// Time since the cluster's clock began.
    pub at: Duration,
    /// Such as `/registry/core/pods/default/web`.
    pub key: String,
    /// What the key holds now; `None` when it went.
    pub value: Option<String>,
}

impl Course {
    /// Where the other course leaves this one, in words; `None` when they are the same.
    pub fn first_difference(&self, other: &Course) -> Option<String> {
        let pairs = self.changes.iter().zip(&other.changes);
        let shared = pairs.take_while(|(one, another)| one == another).count();
        let (one, another) = (self.changes.get(shared), other.changes.get(shared));
        if one.is_none() && another.is_none() {
            return None;
        }
        let tell = |change: Option<&Change>| change.map_or_else(|| "nothing more".to_owned(), ToString::to_string);
        let mut text = format!(
            "the courses ({} and {} changes) are the same for {shared} changes and then part\n",
            self.changes.len(),
            other.changes.len()
        );
        for change in &self.changes[shared.saturating_sub(TOLD_BEFORE)..shared] {
            text += &format!("     both: {change}\n");
        }
        text += &format!("  the one: {}\nthe other: {}", tell(one), tell(another));
        if let (Some(one), Some(another)) = (one, another)
            && let (Some(value), Some(differs)) = (&one.value, &another.value)
            && (one.key == another.key && value != differs)
        {
            let at = value.bytes().zip(differs.bytes()).take_while(|(a, b)| a == b).count();
            text += &format!("\nthe values differ from byte {at} on\n  the one: {}", around(value, at));
            text += &format!("\nthe other: {}", around(differs, at));
        }
        Some(text)
    }
}

/// The part of a text around a byte.
fn around(text: &str, at: usize) -> String {
    let (start, end) = (at.saturating_sub(TOLD_AROUND), text.len().min(at + TOLD_AROUND));
    let part = String::from_utf8_lossy(&text.as_bytes()[start.min(end)..end]);
    format!("{}{part}{}", if start > 0 { "…" } else { "" }, if end < text.len() { "…" } else { "" })
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, at, key, value } = self;
        write!(f, "revision {revision} at {:.6} s: ", at.as_secs_f64())?;
        match value {
            Some(value) => write!(f, "{key} = {} bytes", value.len()),
            None => write!(f, "{key} is deleted"),
        }
    }
}

/// Writes down what happens until the store closes.
pub(super) struct Recorder {
    task: JoinHandle<Vec<Change>>,
}

impl Recorder {
    /// Begins with the store's first change.
    pub(super) fn start(store: &Arc<dyn Store>, clock: Clock) -> Self {
        let watch = store.watch("", INITIAL_REVISION).expect("a new store still has its first change");
        Self { task: tokio::spawn(record(watch, clock)) }
    }

    /// What happened, once the store is closed.
    pub(super) async fn finish(self) -> Course {
        Course { changes: self.task.await.expect("the recorder does not panic") }
    }
}

async fn record(mut watch: Watch, clock: Clock) -> Vec<Change> {
    let mut changes = Vec::new();
    loop {
        match watch.recv().await {
            Ok(WatchMessage::Events(events)) => {
                changes.extend(events.iter().map(|event| change(event, clock.monotonic())));
            }
            Ok(WatchMessage::Progress(_)) => {}
            Err(Error::Closed) => return changes,
            Err(error) => panic!("the course has a gap: {error}"),
        }
    }
}

fn change(event: &Event, at: Duration) -> Change {
    let text = || String::from_utf8(event.kv.value.to_vec()).expect("what the API server writes is text");
    Change {
        revision: event.revision(),
        at,
        key: event.kv.key.to_string(),
        value: (event.kind == EventKind::Put).then(text),
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Course};
    use std::time::Duration;

    fn course(changes: &[(&str, Option<&str>)]) -> Course {
        let change = |(at, (key, value)): (usize, &(&str, Option<&str>))| Change {
            revision: at as u64 + 2,
            at: Duration::from_millis(1500),
            key: (*key).to_owned(),
            value: value.map(str::to_owned),
        };
        Course { changes: changes.iter().enumerate().map(change).collect() }
    }

    #[test]
    fn a_difference_is_told_with_what_led_there() {
        let one = course(&[("/a", Some("1")), ("/b", Some("{\"x\":1}")), ("/c", None)]);
        assert_eq!(one.first_difference(&one.clone()), None);
        let other = course(&[("/a", Some("1")), ("/b", Some("{\"x\":2}"))]);
        let told = one.first_difference(&other).unwrap();
        for part in ["the same for 1 changes", "both: revision 2 at 1.500000 s: /a = 1 bytes", "byte 5", "{\"x\":2}"] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
        let shorter = course(&[("/a", Some("1")), ("/b", Some("{\"x\":1}"))]);
        let told = one.first_difference(&shorter).unwrap();
        assert!(told.contains("/c is deleted\nthe other: nothing more"), "{told}");
    }
}
