//! Exponential back-off of restarts and of image pulls, as pure bookkeeping over timestamps.
//!
//! (client-go: `util/flowcontrol/backoff.go`; kubelet: `MaxContainerBackOff`, `imageBackOff`.)

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The first pause between two attempts.
pub const INITIAL: Duration = Duration::from_secs(10);
/// The longest pause between two attempts. What worked for twice as long begins anew.
pub const MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Debug)]
struct Entry {
    delay: Duration,
    last_update: Timestamp,
}

/// The pauses of one kubelet, by key (a container of a pod, an image of a pod).
#[derive(Clone, Debug, Default)]
pub struct BackOff {
    entries: BTreeMap<String, Entry>,
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

impl BackOff {
    /// The pause that `key` has earned so far.
    pub fn delay(&self, key: &str) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |entry| entry.delay)
    }

    /// Notes another attempt for what failed at `failed_at`: the pause starts at [`INITIAL`] and doubles up to [`MAX`].
    pub fn next(&mut self, key: &str, failed_at: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(key) {
            Some(entry) if !expired(entry, failed_at) => (entry.delay * 2).min(MAX),
            _ => INITIAL,
        };
        self.entries.insert(key.to_owned(), Entry { delay, last_update: now });
    }

    /// Until when what failed at `failed_at` has to wait, if it has to.
    pub fn until(&self, key: &str, failed_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get(key).filter(|entry| !expired(entry, failed_at))?;
        Some(later(failed_at, entry.delay)).filter(|until| *until > now)
    }

    /// Until when `key` has to wait since its last attempt was noted, if it has to.
    pub fn until_since_update(&self, key: &str, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get(key).filter(|entry| !expired(entry, now))?;
        Some(later(entry.last_update, entry.delay)).filter(|until| *until > now)
    }

    /// The pauses of one pod (keys begin with its UID).
    pub fn clone_pod(&self, uid: &str) -> BackOff {
        let range = self.entries.range(uid.to_owned()..).take_while(|(key, _)| key.starts_with(uid));
        BackOff { entries: range.map(|(key, entry)| (key.clone(), entry.clone())).collect() }
    }

    /// Forgets `key`.
    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// Forgets all keys of a pod (keys begin with its UID).
    pub fn forget_pod(&mut self, uid: &str) {
        self.entries.retain(|key, _| !key.starts_with(uid));
    }
}

/// Whether so much time lies between the last attempt and the failure that it counts as a new story.
fn expired(entry: &Entry, failed_at: Timestamp) -> bool {
    later(entry.last_update, MAX * 2) < failed_at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn doubles_to_five_minutes_and_starts_anew_after_ten_good_ones() {
        let mut backoff = BackOff::default();
        let mut now = at(0);
        assert_eq!(backoff.until("k", now, now), None, "the first crash restarts at once");
        let mut delays = Vec::new();
        for _ in 0..7 {
            backoff.next("k", now, now);
            delays.push(backoff.delay("k").as_secs());
            now = backoff.until("k", now, now).unwrap();
            assert_eq!(backoff.until("k", at(0), now), None);
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        let much_later = later(now, Duration::from_secs(1000));
        assert_eq!(backoff.until("k", much_later, much_later), None);
        backoff.next("k", much_later, much_later);
        assert_eq!(backoff.delay("k"), INITIAL);
    }

    #[test]
    fn a_pod_is_forgotten_as_a_whole() {
        let mut backoff = BackOff::default();
        backoff.next("u1_a", at(0), at(0));
        backoff.next("u2_a", at(0), at(0));
        backoff.forget_pod("u1");
        assert_eq!(backoff.delay("u1_a"), Duration::ZERO);
        assert_eq!(backoff.until_since_update("u2_a", at(4)), Some(at(10)));
        backoff.forget("u2_a");
        assert_eq!(backoff.until_since_update("u2_a", at(4)), None);
    }
}
