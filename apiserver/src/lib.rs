//! # The API server
//!
//! Everything in a cluster meets here. A request passes filters that know only its URL and its caller, then one
//! generic registry that serves every kind, driven by the rows and strategies of `minik8s_api`; reads are served
//! from a watch cache that holds each object once, encoded.
//!
//! ```text
//!  request ─▶ server   authn → impersonation → in-flight bound → authz
//!                │ RequestInfo, UserInfo
//!                ▼
//!            endpoints  options, content negotiation ── discovery, openapi, health, metrics, kubelet proxy
//!                │ Value (decoded by schema)
//!                ▼
//!            registry   default → admit → prepare → validate → admit (validating) → compare-and-set ──▶ store
//!                ▲                                                                                     │ events, in order
//!                └───────────── cache: encoded objects, recent events, indexed watchers ◀──────────────┘
//! ```
//!
//! ## Reading order
//! 1. [`server`]: configuration, the filter chain, TLS.
//! 2. [`request`], [`query`], [`options`], [`negotiate`]: what a request asks for, and in which form.
//! 3. [`cache`]: the watch cache; `cache::Object` is what every read serves.
//! 4. [`registry`]: the one write pipeline, and the subresources.
//! 5. [`endpoints`]: HTTP in, HTTP out; then [`discovery`], [`openapi`], [`health`], [`metrics`].
//! 6. Who may do what: [`identity`], [`authn`], [`impersonation`], [`authz`], [`reviews`], [`tokens`].
//! 7. What is admitted: [`admission`], [`allocators`], and what a new cluster holds: [`bootstrap`].
//!
//! ## Invariants
//! - Nothing reaches a handler without an identity and an authorizer's yes. The identity of an in-process caller is a
//!   request extension, which no network path can set.
//! - The cache equals the store at [`cache::Cache::applied`]; a write is answered only after the cache holds it.
//! - An object is encoded once when it is written; lists and watches concatenate those bytes and splice the
//!   resource version, they never encode again for JSON in the storage version.
//! - A watcher never blocks the cache: one that does not keep up is closed and lists again.
//! - A panic in a handler is that request's 500 and nobody else's.
//!
//! ## Left out, compared with Kubernetes
//! Audit logs, priority-and-fairness queues (one in-flight bound stands in), API aggregation, webhooks and admission
//! policies, custom resources, encryption at rest. OpenAPI is answered in JSON only.

pub mod server;
mod serve;
pub mod errors;
pub mod request;
pub mod query;
pub mod options;
pub mod negotiate;
pub mod cache;
pub mod registry;
pub mod endpoints;
mod routes;
pub mod discovery;
pub mod openapi;
pub mod health;
pub mod metrics;
pub mod version;
pub mod identity;
pub mod authn;
pub mod impersonation;
pub mod authz;
pub mod reviews;
pub mod tokens;
pub mod admission;
pub mod allocators;
pub mod bootstrap;
