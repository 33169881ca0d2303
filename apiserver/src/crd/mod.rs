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
//! Objects are read and written in any version: [`conversion`] is asked wherever an object leaves the version that it is in.
//! The pipeline of a write works in the version of the request; only what is stored is converted.
//!
//! Reading order: [`names`], [`controller`], [`cleanup`], [`conversion`].
//!
//! ## Invariants
//! - A kind is in the snapshot only while its cache is filled: `add_resource` before `set_kinds`, and back in reverse.
//! - A definition that changes closes the watches of its objects: what they were sent is no longer what is served.
//! - An object stays in the version that it was stored in until it is written again: a definition may change its storage
//!   version without a webhook being asked about all that is there.
//! - Objects are deleted through the registry, so that their finalizers and owners count.
//!
//! ## Left out, compared with Kubernetes
//! Field selectors other than by name and namespace, in a version that a webhook converts to. The five-second pause
//! between `NamesAccepted` and `Established`, which covers servers that have not seen the definition.

pub mod cleanup;
pub mod controller;
pub mod conversion;
pub mod names;

pub use controller::{DefinitionHook, Definitions};
pub use conversion::Converter;
