//! # The API server
//!
//! Everything in a cluster meets here. A request passes filters that know only its URL and its caller, then one
//! generic registry that serves every kind, driven by the rows and strategies of `minik8s_api`; reads are served
//! from a watch cache that holds each object once, encoded.
//!
//! ```text
//!  request ─▶ server   authn → audit → impersonation → flow control → authz
//!                │ RequestInfo, UserInfo
//!                ▼
//!                ├── an APIService of another server: aggregator ── TLS ──▶ that server
//!                ▼
//!            endpoints  options, content negotiation ── discovery, openapi, health, metrics, kubelet proxy
//!                │ Value (decoded by schema)
//!                ▼
//!            registry   default → admit → prepare → validate → admit (validating) → compare-and-set ──▶ store (encrypted)
//!                ▲                                                                                     │ events, in order
//!                └───────────── cache: encoded objects, recent events, indexed watchers ◀──────────────┘
//! ```
//!
//! ## Reading order
//! 1. [`server`] (what it is built from, the filters), [`settings`] (what operators set), `serve` (listening),
//!    [`places`] (how much may stay open).
//! 2. [`request`], [`query`], [`options`], [`negotiate`]: what a request asks for, and in which form.
//! 3. [`cache`]: the watch cache; [`cache::Object`] is what every read serves.
//! 4. [`registry`]: the one write pipeline, and the subresources.
//! 5. [`endpoints`]: resources over HTTP; `routes`: the rest, with [`discovery`], [`openapi`], [`health`], [`metrics`].
//! 6. What guards the server: [`audit`], [`flowcontrol`], [`encryption`].
//! 7. Who may do what: [`identity`], [`authn`], [`impersonation`], [`authz`], [`reviews`], [`tokens`].
//! 8. Whom the server itself calls: [`outgoing`], [`aggregator`].
//! 9. What is admitted: [`admission`], [`allocators`], and what a new cluster holds: [`bootstrap`].
//!
//! ## Invariants
//! - Nothing reaches a handler without an identity and an authorizer's yes. The identity of an in-process caller is a
//!   request extension, which no network path can set.
//! - The cache equals the store at [`cache::Cache::applied`]; a write is answered only after the cache holds it.
//! - An object is encoded once when it is written; lists and watches concatenate those bytes and splice the resource
//!   version in, they never encode again for JSON in the storage version.
//! - A watcher never blocks the cache: one that does not keep up is closed and lists again.
//! - A refusal holds against the present state: one that rests on a cached state is checked again when that was stale.
//! - A panic in a handler is that request's 500 and nobody else's.
//! - No wait without a bound: connections, headers, bodies, queues, watches, watch channels, recent events, request times
//!   are bounded by named constants (`docs/bounds.md`).
//!
//! ## Left out, compared with Kubernetes
//! - What webhooks, policies and OpenID Connect leave out stands in their own chapters.
//! - The warning that a token which a Secret holds was made by itself; its use is written down all the same.
//! - What the audit log, encryption and priority and fairness leave out stands in [`audit`], [`encryption`], [`flowcontrol`].
//! - OpenAPI documents in protobuf (406): clients that explain or validate ask for JSON.
//! - Continue tokens that go on inconsistently after their revision is compacted: the client starts over.
//! - The watch cache resumes watches from its own ring of recent events, not from the store's older history.
//! - Bookmarks carry only `metadata`, not the zero values of the whole type.

pub mod places;
mod serve;
pub mod server;
pub mod settings;

pub mod negotiate;
pub mod options;
pub mod query;
pub mod request;

pub mod cache;

pub mod registry;

pub mod endpoints;

pub mod discovery;
pub mod documents;
pub mod health;
pub mod metrics;
pub mod openapi;
mod routes;
pub mod version;

pub mod identity;

pub mod authn;

pub mod audit;
pub mod impersonation;

pub mod authz;

pub mod reviews;
pub mod tokens;

pub mod encryption;

pub mod flowcontrol;

pub mod outgoing;

pub mod aggregator;

pub mod admission;
pub mod allocators;

pub mod bootstrap;

pub mod crd;

mod conditions;

pub mod errors;
