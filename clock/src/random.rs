//! Random numbers and names.

use parking_lot::Mutex;
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::{fmt, sync::Arc, time::Duration};

/// The characters of generated names: no vowels and no look-alikes, so that no word and no doubt
/// comes out by chance (`k8s.io/apimachinery/pkg/util/rand`).
pub const NAME_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A source of random numbers. Clones share one stream; [`Random::fork`] starts another.
///
/// The generator is ChaCha12, so that what comes from [`Random::from_os`] is fit for identifiers
/// and secrets.
#[derive(Clone)]
pub struct Random {
    stream: Arc<Mutex<StdRng>>,
}

impl Random {
    /// Seeded by the operating system: different every time.
    #[allow(clippy::disallowed_methods, reason = "the only place that may ask the operating system")]
    pub fn from_os() -> Random {
        Random::new(StdRng::from_os_rng())
    }

    /// The same numbers for the same seed.
    pub fn seeded(seed: u64) -> Random {
        Random::new(StdRng::seed_from_u64(seed))
    }

    fn new(stream: StdRng) -> Random {
        Random { stream: Arc::new(Mutex::new(stream)) }
    }

    /// A stream of its own, which depends only on how much was drawn here before.
    pub fn fork(&self) -> Random {
        Random::new(StdRng::from_rng(&mut *self.stream.lock()))
    }

    /// A random UUID (version 4), as objects' UIDs are.
    pub fn uuid(&self) -> String {
        let mut bytes = [0; 16];
        self.bytes(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40; // RFC 9562, section 5.4: version 4
        bytes[8] = bytes[8] & 0x3f | 0x80; // and the variant
        // By hand: every request has one in its answer.
        let mut text = String::with_capacity(36);
        for (at, byte) in bytes.into_iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(HEX[usize::from(byte >> 4)] as char);
            text.push(HEX[usize::from(byte & 15)] as char);
        }
        text
    }

    /// `length` characters of [`NAME_ALPHABET`], as `generateName` appends five of.
    pub fn suffix(&self, length: usize) -> String {
        let mut stream = self.stream.lock();
        (0..length).map(|_| NAME_ALPHABET[stream.random_range(0..NAME_ALPHABET.len())] as char).collect()
    }

    /// A number in `0.0..1.0`.
    pub fn next_f64(&self) -> f64 {
        self.stream.lock().random()
    }

    /// A number in `0..n`; 0 when `n` is 0.
    pub fn below(&self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.stream.lock().random_range(0..n) }
    }

    /// Puts a slice in random order.
    pub fn shuffle<T>(&self, slice: &mut [T]) {
        slice.shuffle(&mut *self.stream.lock());
    }

    /// A duration between `duration` and `duration * (1 + factor)`; a factor of zero or less counts
    /// as one (`k8s.io/apimachinery/pkg/util/wait.Jitter`).
    pub fn jitter(&self, duration: Duration, factor: f64) -> Duration {
        let factor = if factor > 0.0 { factor } else { 1.0 };
        let seconds = duration.as_secs_f64() * (1.0 + factor * self.next_f64());
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Fills a buffer.
    pub fn bytes(&self, buffer: &mut [u8]) {
        self.stream.lock().fill_bytes(buffer);
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}
