//! # Encryption at rest
//!
//! An `apiserver.config.k8s.io/v1` EncryptionConfiguration says which resources are kept encrypted, and how. The store then
//! holds `k8s:enc:aesgcm:v1:KEY:…` where it else holds JSON, on disk, in its log and in its snapshots.
//!
//! ```text
//!  registry, cache, admission, allocators            plain objects
//!        │ Store
//!  EncryptedStore ── Configuration ── Providers      by the resource that a key names: the first provider writes, all read
//!        │ Store
//!  RaftStore, MemoryStore                            what Providers made of them
//! ```
//! [`configuration`] reads the file, [`provider`] encrypts, [`store`] is the layer between. Since all who use the store go
//! through that layer, the watch cache holds plain objects, and history is read as it was.
//!
//! To change keys, put the new one first and start again: everything is still read, and an object is encrypted anew when it
//! is next written, even if that write changes nothing else (`kubectl get secrets -A -o json | kubectl replace -f -`).
//!
//! A value that no provider reads is never served and never passed over: the server does not start, and says which key it
//! is. `k8s.io/apiserver/pkg/server/options/encryptionconfig`, `pkg/storage/value/encrypt`.
//!
//! Left out, compared with Kubernetes: KMS providers (refused by name), a file that is read again while the server runs, and
//! serving the other objects while one cannot be read.

pub mod configuration;
pub mod provider;
pub mod store;

pub use configuration::Configuration;
pub use store::EncryptedStore;

/// What every encrypted value begins with.
pub const PREFIX: &str = "k8s:enc:";
