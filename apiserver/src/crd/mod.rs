//! # CustomResourceDefinitions
//!
//! A definition becomes a served kind, and later stops being one, while the server runs:
//!
//! ```text
//!  CustomResourceDefinition written ──▶ Definitions::sync
//!                                         │ names      are they free? conditions NamesAccepted, Established
//!                                         │ rows       minik8s_api::custom: kinds with types, rules, columns
//!                                         ▼
//!                                       cache.add_resource    objects in the store, watchers
//!                                       cache.set_kinds       a new snapshot: routing, discovery, OpenAPI at once
//!  deletionTimestamp ──▶ cleanup: delete every object ──▶ finalizer off ──▶ gone: rows and cache leave
//! ```
//!
//! Whoever writes a definition waits until this server has followed ([`DefinitionHook`]); other servers follow by their
//! own watch. Every server writes the same status, computed from what it finds, so it does not matter who is first.
//!
//! Reading order: [`names`], [`controller`], [`cleanup`].
//!
//! ## Invariants
//! - A kind is in the snapshot only while its cache is filled: `add_resource` before `set_kinds`, and back in reverse.
//! - A definition that changes closes the watches of its objects: what they were sent is no longer what is served.
//! - Objects are deleted through the registry, so that their finalizers and owners count.
//!
//! ## Left out, compared with Kubernetes
//! Conversion by webhook: requests in a version that is not the stored one are refused. The five-second pause between
//! `NamesAccepted` and `Established`, which covers servers that have not seen the definition.

pub mod cleanup;
pub mod controller;
pub mod names;

pub use controller::{DefinitionHook, Definitions};
