//! Several members in one process, on a network that loses and delays what it likes: the same loop
//! that a sole member runs.
//!
//! The members' threads are real, so the order of things differs from run to run; what must hold
//! does not.

use bytes::Bytes;
use minik8s_clock::{Clock, Pace, Random};
use minik8s_store::*;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

const MEMBERS: [u64; 3] = [1, 2, 3];

/// How long anything here may take, in the cluster's time, which runs fast.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Default)]
struct Network {
    members: Mutex<BTreeMap<u64, Weak<RaftStore>>>,
    cut_off: Mutex<BTreeSet<u64>>,
    /// One of so many messages is lost; none if 0.
    loss: Mutex<u64>,
}

/// A member's place in the network.
struct Port {
    network: Arc<Network>,
    from: u64,
    random: Random,
}

impl Transport for Port {
    fn send(&self, to: u64, message: Bytes) {
        let cut_off = self.network.cut_off.lock();
        let loss = *self.network.loss.lock();
        let lost = loss > 0 && self.random.below(loss) == 0;
        if lost || cut_off.contains(&self.from) || cut_off.contains(&to) {
            return;
        }
        let member = self.network.members.lock().get(&to).and_then(Weak::upgrade);
        if let Some(member) = member {
            // A member that stops does not listen.
            let _ = member.receive(&message);
            // Should this be the last handle, its thread must not be waited for on the thread of
            // another member.
            #[allow(clippy::disallowed_methods, reason = "as said")]
            std::thread::spawn(move || drop(member));
        }
    }
}

struct Cluster {
    folder: tempfile::TempDir,
    network: Arc<Network>,
    clock: Clock,
    _pace: Pace,
    members: BTreeMap<u64, Arc<RaftStore>>,
}

impl Cluster {
    async fn start() -> Cluster {
        let (clock, pace) = Clock::paced();
        pace.set_speed(20.0);
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Cluster { folder, network: Arc::default(), clock, _pace: pace, members: BTreeMap::new() };
        for member in MEMBERS {
            cluster.open(member).await;
        }
        cluster
    }

    fn dir(&self, member: u64) -> PathBuf {
        self.folder.path().join(member.to_string())
    }

    async fn open(&mut self, member: u64) {
        let random = Random::seeded(member);
        let options = RaftOptions {
            member,
            voters: MEMBERS.to_vec(),
            transport: Arc::new(Port { network: self.network.clone(), from: member, random: random.fork() }),
            snapshot_log_bytes: 50_000,
            ..RaftOptions::default()
        };
        let store = RaftStore::open(&self.dir(member), self.clock.clone(), random, options).await.unwrap();
        self.network.members.lock().insert(member, Arc::downgrade(&store));
        self.members.insert(member, store);
    }

    async fn stop(&mut self, member: u64) {
        self.network.members.lock().remove(&member);
        let store = self.members.remove(&member).unwrap();
        store.shutdown().await;
    }

    /// Polls until something holds.
    async fn until<T>(&self, what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
        let deadline = self.clock.monotonic() + PATIENCE;
        loop {
            if let Some(found) = holds() {
                return found;
            }
            let statuses: Vec<_> = self.members.values().map(|store| store.status()).collect();
            assert!(self.clock.monotonic() < deadline, "{what} took too long: {statuses:#?}");
            self.clock.sleep(TICK).await;
        }
    }

    /// The member that leads among those that are not cut off.
    async fn leader(&self) -> u64 {
        self.until("an election", || {
            let cut_off = self.network.cut_off.lock().clone();
            let leads = |(member, store): (&u64, &Arc<RaftStore>)| {
                (store.status().role == Role::Leader && !cut_off.contains(member)).then_some(*member)
            };
            self.members.iter().find_map(leads)
        })
        .await
    }

    /// Writes through a member, again and again until it is acknowledged.
    async fn put(&self, member: u64, key: &str, value: &str) -> Revision {
        let deadline = self.clock.monotonic() + PATIENCE;
        loop {
            match self.members[&member].commit(Txn::put(key, value.to_owned().into())).await {
                Ok(TxnResponse::Committed { revision, .. }) => return revision,
                Ok(conflict) => panic!("{conflict:?}"),
                Err(Error::NoLeader | Error::OutcomeUnknown) => self.clock.sleep(TICK).await,
                Err(error) => panic!("{error}"),
            }
            assert!(self.clock.monotonic() < deadline, "a write took too long");
        }
    }

    /// All members come to hold the same.
    async fn agree(&self) -> RangeResponse {
        let revision = self.read_index(self.leader().await).await;
        self.until("agreement", || self.members.values().all(|store| store.revision() >= revision).then_some(())).await;
        let mut held = Vec::new();
        for store in self.members.values() {
            held.push(store.range(Range::prefix("").at(revision)).await.unwrap());
        }
        assert!(held.windows(2).all(|pair| pair[0] == pair[1]));
        held.swap_remove(0)
    }

    async fn read_index(&self, member: u64) -> Revision {
        let deadline = self.clock.monotonic() + PATIENCE;
        loop {
            match self.members[&member].read_index().await {
                Ok(revision) => return revision,
                Err(Error::NoLeader) => self.clock.sleep(TICK).await,
                Err(error) => panic!("{error}"),
            }
            assert!(self.clock.monotonic() < deadline, "a read took too long");
        }
    }
}

#[tokio::test]
async fn members_agree_and_followers_serve() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = MEMBERS.into_iter().find(|member| *member != leader).unwrap();
    let mut watch = cluster.members[&follower].watch("/", INITIAL_REVISION).unwrap();
    for n in 0..20 {
        // Whoever asks sees what was acknowledged by another.
        let revision = cluster.put(MEMBERS[n % 3], &format!("/{n}"), "x").await;
        for member in MEMBERS {
            assert!(cluster.read_index(member).await >= revision);
        }
    }
    assert_eq!(cluster.agree().await.key_values.len(), 20);
    let mut revision = INITIAL_REVISION;
    while revision < cluster.members[&follower].revision() {
        if let WatchMessage::Events(events) = watch.recv().await.unwrap() {
            assert_eq!(events[0].revision(), revision + 1);
            revision += 1;
        }
    }
}

#[tokio::test]
async fn a_leader_that_is_cut_off_is_replaced_and_neither_loses_nor_invents() {
    let cluster = Cluster::start().await;
    let old = cluster.leader().await;
    cluster.put(old, "/before", "1").await;
    cluster.network.cut_off.lock().insert(old);
    // What it is told now nobody else hears of.
    let lonely = cluster.members[&old].clone();
    let unheard = tokio::spawn(async move { lonely.commit(Txn::put("/unheard", Bytes::new())).await });
    let new = cluster.leader().await;
    assert_ne!(new, old);
    cluster.put(new, "/after", "2").await;
    assert_eq!(cluster.members[&old].get("/after").await.unwrap(), None);
    assert_eq!(cluster.members[&old].read_index().await, Err(Error::NoLeader), "it cannot know what it missed");
    assert!(matches!(unheard.await.unwrap(), Err(Error::OutcomeUnknown | Error::NoLeader)));
    cluster.network.cut_off.lock().clear();
    let keys: Vec<String> = cluster.agree().await.key_values.iter().map(|kv| kv.key.to_string()).collect();
    assert_eq!(keys, ["/after", "/before"]);
}

#[tokio::test]
async fn a_member_that_missed_more_than_the_log_holds_gets_a_snapshot() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    cluster.put(leader, "/a", "1").await;
    cluster.agree().await;
    let absent = MEMBERS.into_iter().find(|member| *member != leader).unwrap();
    cluster.stop(absent).await;
    let value = "x".repeat(10_000);
    for n in 0..40 {
        cluster.put(leader, &format!("/{}", n % 4), &value).await;
    }
    cluster.open(absent).await;
    let old = cluster.members[&absent].watch("/", INITIAL_REVISION);
    assert_eq!(cluster.agree().await.key_values.len(), 5);
    // Who watched the old state is told to list again, or came too late to see it.
    if let Ok(mut old) = old {
        let mut last = INITIAL_REVISION;
        let ended = loop {
            match cluster.clock.timeout(PATIENCE, old.recv()).await.expect("the watch goes on or ends") {
                Ok(WatchMessage::Events(events)) => last = events[0].revision(),
                Ok(WatchMessage::Progress(_)) => {}
                Err(error) => break Some(error),
            }
            if last >= cluster.members[&absent].revision() {
                break None;
            }
        };
        assert!(matches!(ended, None | Some(Error::Compacted { .. })), "{ended:?}");
    }
    // It is a full member again, also after another start.
    cluster.stop(absent).await;
    cluster.open(absent).await;
    cluster.put(absent, "/last", "1").await;
    assert_eq!(cluster.agree().await.key_values.len(), 6);
}

#[tokio::test]
async fn a_lossy_network_and_restarts_lose_nothing_acknowledged() {
    let mut cluster = Cluster::start().await;
    *cluster.network.loss.lock() = 10;
    let random = Random::seeded(7);
    let mut last = INITIAL_REVISION;
    for n in 0..60 {
        let member = MEMBERS[random.below(3) as usize];
        let revision = cluster.put(member, &format!("/{n}"), "x").await;
        assert!(revision > last, "revisions only grow");
        last = revision;
        if n % 15 == 14 {
            let member = MEMBERS[random.below(3) as usize];
            cluster.stop(member).await;
            cluster.open(member).await;
        }
    }
    *cluster.network.loss.lock() = 0;
    assert_eq!(cluster.agree().await.key_values.len(), 60);
}

#[tokio::test]
async fn leases_expire_once_under_whoever_leads() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let lease = cluster.members[&leader].grant_lease(Duration::from_secs(20)).await.unwrap();
    let txn = Txn::put("/leased", Bytes::new()).with_lease(lease);
    cluster.members[&leader].commit(txn).await.unwrap();
    cluster.network.cut_off.lock().insert(leader);
    let new = cluster.leader().await;
    cluster.until("expiry", || (cluster.members[&new].status().leases == 0).then_some(())).await;
    assert_eq!(cluster.members[&new].get("/leased").await.unwrap(), None);
    cluster.network.cut_off.lock().clear();
    assert_eq!(cluster.agree().await.key_values, []);
}
