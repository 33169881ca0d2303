//! The memory of a container: numbers, not bytes.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Counts what the processes of a container hold against its limit, and tells when it is over.
///
/// Going over kills every process of the container, as `memory.oom.group` of cgroup v2 does, which the kubelet sets.
#[derive(Debug, Clone)]
pub struct MemoryMeter {
    inner: Arc<Mutex<Meter>>,
    out_of_memory: CancellationToken,
}

#[derive(Debug)]
struct Meter {
    used: u64,
    limit: Option<u64>,
}

/// Memory held by someone; given back when dropped.
#[derive(Debug)]
pub struct Allocation {
    meter: MemoryMeter,
    bytes: u64,
}

impl MemoryMeter {
    /// An empty meter; `None` is no limit.
    pub fn new(limit: Option<u64>) -> MemoryMeter {
        let inner = Arc::new(Mutex::new(Meter { used: 0, limit }));
        MemoryMeter { inner, out_of_memory: CancellationToken::new() }
    }

    /// Takes memory. Over the limit the whole container is about to be killed, and the caller with it.
    pub fn allocate(&self, bytes: u64) -> Allocation {
        let mut meter = self.inner.lock();
        meter.used = meter.used.saturating_add(bytes);
        self.check(&meter);
        Allocation { meter: self.clone(), bytes }
    }

    fn check(&self, meter: &Meter) {
        if meter.limit.is_some_and(|limit| meter.used > limit) {
            self.out_of_memory.cancel();
        }
    }

    /// Changes the limit; below what is held it kills.
    pub fn set_limit(&self, limit: Option<u64>) {
        let mut meter = self.inner.lock();
        meter.limit = limit;
        self.check(&meter);
    }

    /// Bytes held.
    pub fn used(&self) -> u64 {
        self.inner.lock().used
    }

    /// The limit in bytes.
    pub fn limit(&self) -> Option<u64> {
        self.inner.lock().limit
    }

    /// Completes when the limit was exceeded.
    pub async fn exceeded(&self) {
        self.out_of_memory.cancelled().await;
    }
}

impl Allocation {
    /// Holds another amount from now on.
    pub fn resize(&mut self, bytes: u64) {
        let mut meter = self.meter.inner.lock();
        meter.used = meter.used.saturating_sub(self.bytes).saturating_add(bytes);
        self.bytes = bytes;
        self.meter.check(&meter);
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let mut meter = self.meter.inner.lock();
        meter.used = meter.used.saturating_sub(self.bytes);
    }
}
