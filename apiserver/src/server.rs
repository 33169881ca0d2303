//! The server: what it is built from, and the filters every request passes.
//!
//! ```text
//!  count → authenticate → audit → impersonate → flow control → authorize → route ─┬─ resources    endpoints::resource
//!     (a panic anywhere is this request's 500)                               ├─ the server   discovery, openapi, health, metrics
//!                                                                            └─ extra routes of the binary
//! ```
//! `k8s.io/apiserver/pkg/server/config.go` `DefaultBuildHandlerChain`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Request as HttpRequest, Response, StatusCode};
use minik8s_api::kinds::{GroupResource, Kinds};
use minik8s_api::status::Status;
use minik8s_api::time::parse_duration;
use minik8s_clock::{Clock, Random};
use minik8s_store::Store;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Chain, Cluster};
use crate::aggregator::{self, Aggregator, FrontProxy};
use crate::allocators::{Ranges, ServiceAllocators};
use crate::audit::{self, AUDIT_ID, Audit};
use crate::authn::configuration::Anonymous;
use crate::authn::jwt::{PublicKey, SigningKey};
use crate::authn::oidc::OidcAuthenticator;
use crate::authn::{
    Authenticator, BootstrapTokens, ClientCertificates, Proxies, ServiceAccountTokens, StaticTokens, legacy_token,
};
use crate::authz::{self, AlwaysAllow, AlwaysDeny, Authorizer, Masters, Mode, NodeAuthorizer, Rbac, Union};
use crate::bootstrap::{self, Bootstrap};
use crate::cache::{Cache, Objects};
use crate::crd::{Converter, Definitions};
use crate::discovery::Discovery;
use crate::documents::Surface;
use crate::encryption::{self, EncryptedStore};
use crate::endpoints::connect::NodeConnector;
use crate::endpoints::held::Held;
use crate::endpoints::resource::{self, Request};
use crate::endpoints::respond::Reply;
use crate::errors::Error;
use crate::flowcontrol::{self, FLOW_SCHEMA_UID, FlowControl, PRIORITY_LEVEL_UID, Rejection, controller::Controller};
use crate::flowcontrol::{level::Seat, schema::Schema};
use crate::health::{Component, Health};
use crate::identity::UserInfo;
use crate::impersonation::impersonate;
use crate::metrics::Metrics;
use crate::metrics::requests::Answered;
use crate::openapi::OpenApi;
use crate::outgoing::{Outgoing, ServiceDialer};
pub use crate::places::Limits;
use crate::places::Places;
use crate::query::Query;
use crate::registry::{Registry, Warnings};
use crate::request::RequestInfo;
use crate::reviews::Reviews;
use crate::routes;
use crate::settings::{Settings, served_kinds};
use crate::tokens::Tokens;

/// When a client should come back that was turned away.
const RETRY_AFTER_SECONDS: u32 = 1;

/// What a server is built from.
pub struct Config {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Clock,
    /// UIDs and names.
    pub random: Random,
    /// Signs and verifies ServiceAccount tokens.
    pub service_account_key: SigningKey,
    /// CAs whose client certificates are good, and the same as PEM.
    pub client_ca: Vec<CertificateDer<'static>>,
    /// The client CAs as PEM, published in `kube-system/extension-apiserver-authentication`.
    pub client_ca_pem: String,
    /// How this server introduces itself to the servers behind APIServices, published beside the client CAs.
    pub front_proxy: Option<FrontProxy>,
    /// Tokens that stand in a file.
    pub static_tokens: StaticTokens,
    /// The way to kubelets.
    pub nodes: Arc<dyn NodeConnector>,
    /// The way to pods, webhooks and whatever else the server calls.
    pub dialer: Arc<dyn ServiceDialer>,
    /// Components whose health is shown.
    pub components: Vec<Component>,
    /// Where Services get addresses and ports from.
    pub ranges: Ranges,
    /// The address clients reach this server at.
    pub advertise: SocketAddr,
    /// How many requests are handled at once.
    pub limits: Limits,
    /// What is recorded of requests, and where; nothing without it.
    pub audit: Option<audit::Options>,
    /// How resources are encrypted at rest; none are without it.
    pub encryption: Option<encryption::Configuration>,
    /// What other components of the process tell in `/metrics`.
    pub metrics: minik8s_metrics::Registry,
    /// What operators may set.
    pub settings: Settings,
    /// Paths that are not the API's, behind the same filters.
    pub extra_routes: Router,
}

/// An API server. Clients in process use [`ApiServer::service`]; [`ApiServer::serve`] listens.
pub struct ApiServer {
    config: Config,
    registry: Arc<Registry>,
    authenticator: Arc<Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    reviews: Reviews,
    tokens: Tokens,
    health: Health,
    metrics: Metrics,
    audit: Option<Arc<Audit>>,
    audit_ids: Random,
    discovery: Discovery,
    openapi: OpenApi,
    flow_control: FlowControl,
    outgoing: Outgoing,
    aggregator: Arc<Aggregator>,
    places: Places,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl ApiServer {
    /// Fills the cache, writes what a new cluster holds, and is ready. Ends with `shutdown`.
    pub async fn new(mut config: Config, shutdown: CancellationToken) -> Result<Arc<ApiServer>, Error> {
        if let Some(encryption) = config.encryption.clone() {
            config.store = EncryptedStore::new(config.store, encryption, config.random.fork());
        }
        let Config { store, clock, random, .. } = &config;
        let tasks = TaskTracker::new();
        let kinds = served_kinds(&config.settings.unserved).map_err(Error::Config)?;
        let following = Cache::start(Arc::clone(store), kinds, clock.clone(), &tasks, shutdown.clone());
        let cache = following.await.map_err(Error::Cache)?;
        let objects = Arc::clone(&cache) as Arc<dyn Objects>;
        let outgoing = Outgoing::new(objects, Arc::clone(&config.dialer), clock.clone(), random.fork());
        let converter = Arc::new(Converter::new(outgoing.clone()));
        let registry = Registry::new(Arc::clone(store), Arc::clone(&cache), converter, clock.clone(), random.fork());
        registry.set_event_ttl(config.settings.event_ttl);
        let (uses, told) = legacy_token::uses();
        let gatekeepers = gatekeepers(&config, &cache, &registry, &outgoing, uses)?;
        let (recording, ended) = (legacy_token::record(Arc::clone(&registry), told), shutdown.clone());
        tasks.spawn(async move { ended.run_until_cancelled(recording).await });
        let allocators = ServiceAllocators::new(
            Arc::clone(store),
            cache,
            registry.kinds(),
            clock.clone(),
            random.fork(),
            &config.ranges,
        );
        let services = GroupResource::new("", "services");
        registry.set_hook(services, Arc::new(allocators.clone()));

        let audit = config.audit.clone().map(|options| Audit::open(options, config.clock.clone())).transpose()?;
        let server = Self::assemble(config, registry, outgoing, gatekeepers, audit, tasks, shutdown);
        let bootstrap = Bootstrap {
            advertise: server.config.advertise,
            client_ca: server.config.client_ca_pem.clone(),
            front_proxy: server.config.front_proxy.clone(),
            request_headers: server.config.settings.request_headers.clone(),
            service_network: server.config.ranges.service_network,
        };
        bootstrap::run(&server.registry, &allocators, &bootstrap)
            .await
            .map_err(|error| Error::Bootstrap(error.to_string()))?;
        let kept = bootstrap::keep(Arc::clone(&server.registry), bootstrap, server.shutdown.clone());
        server.tasks.spawn(kept);
        Definitions::start(Arc::clone(&server.registry), &server.tasks, server.shutdown.clone())
            .await
            .map_err(|status| Error::Bootstrap(status.to_string()))?;
        let controller = Controller::new(Arc::clone(&server.registry));
        controller.sync().await;
        server.tasks.spawn(controller.run(server.shutdown.clone()));
        server.aggregator.start(&server.tasks, &server.shutdown);
        server.health.set_ready();
        Ok(server)
    }

    fn assemble(
        config: Config,
        registry: Arc<Registry>,
        outgoing: Outgoing,
        (authenticator, authorizer): Gatekeepers,
        audit: Option<Arc<Audit>>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Arc<ApiServer> {
        let objects = Arc::clone(registry.cache()) as Arc<dyn Objects>;
        let (clock, limits) = (config.clock.clone(), config.limits);
        let flow_control = FlowControl::new(Arc::clone(&objects), clock.clone(), limits.reads + limits.writes);
        Arc::new(ApiServer {
            reviews: Reviews::new(Arc::clone(&authenticator), Arc::clone(&authorizer), clock.clone()),
            tokens: Tokens::new(
                objects,
                clock,
                config.random.fork(),
                config.service_account_key.clone(),
                public_keys(&config),
                config.settings.issuer(),
                config.settings.audiences(),
            ),
            health: Health::new(Arc::clone(&config.store), config.components.clone()),
            metrics: Metrics::default(),
            audit,
            audit_ids: config.random.fork(),
            discovery: Discovery::default(),
            openapi: OpenApi::default(),
            flow_control,
            aggregator: Aggregator::new(Arc::clone(&registry), outgoing.clone(), config.front_proxy.clone()),
            places: Places::new(&limits),
            registry,
            outgoing,
            authenticator,
            authorizer,
            tasks,
            shutdown,
            config,
        })
    }

    /// What it may have at once.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Places of requests that stay open.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Waits until every task of the server has ended, after its shutdown.
    pub async fn stopped(&self) {
        self.health.set_stopping();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The registry.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The kinds served now.
    pub fn kinds(&self) -> Arc<Kinds> {
        self.registry.kinds()
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.config.clock
    }

    /// Answers reviews.
    pub fn reviews(&self) -> &Reviews {
        &self.reviews
    }

    /// Issues ServiceAccount tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Health.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What other components of the process tell.
    pub fn other_metrics(&self) -> &minik8s_metrics::Registry {
        &self.config.metrics
    }

    /// The audit log, if there is one.
    pub fn audit(&self) -> Option<&Arc<Audit>> {
        self.audit.as_ref()
    }

    /// Priority and fairness.
    pub fn flow_control(&self) -> &FlowControl {
        &self.flow_control
    }

    /// Discovery documents.
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Other servers behind APIServices.
    pub fn aggregator(&self) -> &Aggregator {
        &self.aggregator
    }

    /// What is served now, by whomever.
    pub fn surface(&self) -> Surface {
        let (kinds, services) = (self.kinds(), self.aggregator.services());
        Surface { kinds, services, fetched: self.aggregator.documents().generation() }
    }

    /// OpenAPI documents.
    pub fn openapi(&self) -> &OpenApi {
        &self.openapi
    }

    /// The way to kubelets.
    pub fn nodes(&self) -> &Arc<dyn NodeConnector> {
        &self.config.nodes
    }

    /// The way out.
    pub fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    /// The address clients reach this server at.
    pub fn address(&self) -> SocketAddr {
        self.config.advertise
    }

    /// What operators set.
    pub fn settings(&self) -> &Settings {
        &self.config.settings
    }

    /// Paths that are not the API's.
    pub fn extra_routes(&self) -> Router {
        self.config.extra_routes.clone()
    }

    /// Verifies the certificates of clients while TLS is set up; a client without one may go on.
    pub fn authenticator(&self) -> &Arc<Authenticator> {
        &self.authenticator
    }

    /// Cancelled when the server ends.
    pub fn shutdown_token(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// The server as a service, for connections and for clients in process. These may put a [`UserInfo`] into a request's
    /// extensions, which is then who they are.
    pub fn service(self: &Arc<Self>) -> ApiService {
        ApiService(Arc::clone(self))
    }

    /// One request, from the first filter to the answer.
    async fn handle(self: Arc<Self>, request: HttpRequest<Body>) -> Response<Body> {
        let began = self.clock().monotonic();
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let warnings = Warnings::default();
        let pretty = query.get("pretty").map(|_| query.flag("pretty"));
        let mut audit_id = audit::id(&parts.headers, &self.audit_ids);
        let audit = self.audit.as_ref().map(|audit| audit.begin(&audit_id, &info)).unwrap_or_default();
        let served = self.kinds().by_resource(&info.group, &info.version, &info.resource).is_some();
        let open = audit::is_long_running(&info).then(|| Arc::new(self.metrics.long_running(&info, served)));
        let reply = Reply { open: open.clone(), ..Reply::new(&parts, pretty, warnings, audit.clone()) };
        let (dry_run, apply) = (query.get("dryRun") == Some("All"), is_apply(&info, &parts.headers));
        let _in_flight = self.metrics.in_flight(info.is_read_only());

        let mut schema = None;
        let filtered = self.filtered(parts, body, info.clone(), query, reply.clone(), &mut schema);
        let filtered = AssertUnwindSafe(filtered).catch_unwind();
        let response = match filtered.await {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => reply.status(&status),
            Err(panic) => {
                let panic = panic_text(&*panic);
                tracing::error!(verb = info.verb, path = info.path, panic, "a handler panicked");
                audit.panicked(panic);
                reply.status(&panicked(&info))
            }
        };
        let bytes = response.body().size_hint().exact();
        let completion = audit.answered(response.status());
        let mut response = match (completion, open) {
            (None, None) => response,
            // After an upgrade it is the connection that holds them.
            _ if response.status() == StatusCode::SWITCHING_PROTOCOLS => response,
            until => response.map(|body| Body::new(Held::new(body, until))),
        };
        // Never the same twice: HTTP/2 need not remember it for the next answer.
        audit_id.set_sensitive(true);
        response.headers_mut().insert(AUDIT_ID, audit_id);
        if let Some(schema) = schema {
            response.headers_mut().insert(FLOW_SCHEMA_UID, schema.uid.clone());
            response.headers_mut().insert(PRIORITY_LEVEL_UID, schema.level_uid.clone());
        }
        let took = self.clock().monotonic().saturating_sub(began);
        let code = response.status().as_u16();
        self.metrics.observe(&info, Answered { served, code, took, bytes, dry_run, apply });
        response
    }

    async fn filtered(
        self: &Arc<Self>,
        mut parts: http::request::Parts,
        body: Body,
        info: RequestInfo,
        query: Query,
        reply: Reply,
        schema: &mut Option<Arc<Schema>>,
    ) -> Result<Response<Body>, Status> {
        let user = self.identify(&mut parts, &info, &query, &reply).await?;
        let longest = self.config.settings.request_timeout;
        let timeout = if audit::is_long_running(&info) { None } else { Some(request_timeout(&query, longest)?) };
        let handled = async {
            // Held until the answer is there; that of a watch is there when it begins.
            let _seat = match self.take_seat(&user, &info, &query, schema).await {
                Ok(seat) => seat,
                Err(_) => return Ok(too_many_requests(&reply)),
            };
            self.authorize(&user, &info, &query, &reply)?;
            self.route(Request { info, query, parts, user, reply }, body).await
        };
        let Some(timeout) = timeout else { return handled.await };
        match self.clock().timeout(timeout, handled).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::timeout("request did not complete within the allotted timeout", 0)),
        }
    }

    /// Who asks, and in whose name.
    async fn identify(
        &self,
        parts: &mut http::request::Parts,
        info: &RequestInfo,
        query: &Query,
        reply: &Reply,
    ) -> Result<UserInfo, Status> {
        let audit = &reply.audit;
        let attempted = audit.attempted(parts);
        let user = match self.authenticator.authenticate(parts).await {
            Ok(user) => user,
            Err(status) => {
                audit.received(parts, info, query, None);
                audit.unauthenticated(attempted, status.code);
                return Err(status);
            }
        };
        audit.received(parts, info, query, Some(&user));
        let asked = authz::Attributes::of_request(&user, info, query);
        let impersonated = impersonate(parts, &asked, &*self.authorizer)?;
        if let Some(other) = &impersonated {
            audit.impersonated(other);
        }
        Ok(impersonated.map_or(user, |other| other.user))
    }

    /// Waits until the request may be handled; tells which schema decided that. Logs, exec and the like need no seat.
    async fn take_seat(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
        query: &Query,
        schema: &mut Option<Arc<Schema>>,
    ) -> Result<Option<Seat>, Rejection> {
        if !flowcontrol::is_steered(info) {
            return Ok(None);
        }
        let found = schema.insert(self.flow_control.classify(user, info));
        let (flow, seats) = (found.flow(user, info), self.flow_control.seats(found, info, query));
        self.flow_control.admit(found, flow, seats).await.map(Some)
    }

    fn authorize(&self, user: &UserInfo, info: &RequestInfo, query: &Query, reply: &Reply) -> Result<(), Status> {
        let attributes = authz::Attributes::of_request(user, info, query);
        let verdict = self.authorizer.authorize(&attributes);
        reply.audit.authorized(&verdict);
        if verdict.allowed() { Ok(()) } else { Err(authz::forbidden(&attributes, &verdict.reason)) }
    }

    /// Whether the caller may do by another verb what the request is about: a connection that is opened by GET is `create` all the
    /// same (`pkg/registry/core/pod/rest/authorize.go`).
    pub fn authorize_verb(&self, request: &Request, verb: &str) -> Result<(), Status> {
        if request.info.verb == verb {
            return Ok(());
        }
        let asked = authz::Attributes::of_request(&request.user, &request.info, &request.query);
        let verdict = self.authorizer.authorize(&authz::Attributes { verb, ..asked });
        if verdict.allowed() {
            return Ok(());
        }
        let resource = GroupResource::new(request.info.group.as_str(), request.info.resource.as_str());
        Err(Status::forbidden(&resource, &request.info.name, verdict.reason))
    }

    async fn route(self: &Arc<Self>, request: Request, body: Body) -> Result<Response<Body>, Status> {
        if let Some(other) = self.aggregator.other(&request.info.path) {
            let place = self.places.tunnel()?;
            return Ok(aggregator::passed_on(&self.aggregator, &other, place, request, body).await);
        }
        if request.info.is_resource {
            resource::serve(self, request, body).await
        } else {
            routes::serve(self, request, body).await
        }
    }
}

/// Who decides who asks, and what they may do.
type Gatekeepers = (Arc<Authenticator>, Arc<dyn Authorizer>);

/// Makes both; puts the admission chain, which asks them too, into the registry.
fn gatekeepers(
    config: &Config,
    cache: &Arc<Cache>,
    registry: &Registry,
    outgoing: &Outgoing,
    uses: mpsc::Sender<legacy_token::Use>,
) -> Result<Gatekeepers, Error> {
    let objects = Arc::clone(cache) as Arc<dyn Objects>;
    let rbac = Arc::new(Rbac::new(Arc::clone(&objects)));
    let node = NodeAuthorizer::new(Arc::clone(&objects), Arc::clone(cache) as _, Arc::clone(&rbac));
    let node: Arc<dyn Authorizer> = Arc::new(node);
    let mut authorizers: Vec<(&'static str, Arc<dyn Authorizer>)> = vec![(Masters::NAME, Arc::new(Masters))];
    authorizers.extend(config.settings.authorization.iter().map(|mode| match mode {
        Mode::Node => ("node", Arc::clone(&node)),
        Mode::Rbac => ("rbac", Arc::clone(&rbac) as Arc<dyn Authorizer>),
        Mode::AlwaysAllow => ("alwaysallow", Arc::new(AlwaysAllow) as _),
        Mode::AlwaysDeny => ("alwaysdeny", Arc::new(AlwaysDeny) as _),
    }));
    let authorizer: Arc<dyn Authorizer> = Arc::new(Union::new(authorizers));
    let chain = Chain::new(&Cluster {
        objects: Arc::clone(&objects),
        store: Arc::clone(&config.store),
        authorizer: Arc::clone(&authorizer),
        rbac,
        outgoing: outgoing.clone(),
        converter: Arc::clone(registry.converter()),
        clock: config.clock.clone(),
        random: config.random.fork(),
    });
    registry.set_chain(Arc::new(chain.only(&config.settings.admission)), Arc::clone(&authorizer));
    Ok((Arc::new(authenticator(config, &objects, outgoing, uses)?), authorizer))
}

fn authenticator(
    config: &Config,
    objects: &Arc<dyn Objects>,
    outgoing: &Outgoing,
    uses: mpsc::Sender<legacy_token::Use>,
) -> Result<Authenticator, Error> {
    let trusting = |roots: &[CertificateDer<'static>]| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = ClientCertificates::new(roots.iter().cloned(), provider, config.clock.clone());
        certificates.map_err(|error| Error::Config(error.to_string()))
    };
    let certificates = (!config.client_ca.is_empty()).then(|| trusting(&config.client_ca)).transpose()?;
    let settings = &config.settings;
    let proxies = match &settings.request_headers {
        Some(headers) => Some(Proxies::new(headers.clone(), trusting(&headers.ca)?)),
        None => None,
    };
    let issuers = settings.authentication.jwt.iter().map(|issuer| OidcAuthenticator::new(issuer, outgoing));
    Ok(Authenticator {
        proxies,
        certificates,
        static_tokens: config.static_tokens.clone(),
        service_accounts: ServiceAccountTokens::new(
            Arc::clone(objects),
            config.clock.clone(),
            public_keys(config),
            settings.issuers.clone(),
            settings.audiences(),
            uses,
        ),
        bootstrap_tokens: settings
            .bootstrap_tokens
            .then(|| BootstrapTokens::new(Arc::clone(objects), config.clock.clone())),
        issuers: issuers.collect::<Result<_, _>>().map_err(Error::Config)?,
        anonymous: anonymous(settings),
    })
}

/// Whom requests without credentials are let pass as. Where everybody may do everything, nobody passes who is not known, unless
/// that was said (`pkg/kubeapiserver/options/authentication.go` `ApplyAuthorization`).
fn anonymous(settings: &Settings) -> Option<Anonymous> {
    let anybody = settings.authorization.contains(&Mode::AlwaysAllow);
    let unsaid = settings.authentication.anonymous.is_none();
    let nobody = Anonymous { enabled: false, ..Anonymous::default() };
    if anybody && unsaid { Some(nobody) } else { settings.authentication.anonymous.clone() }
}

/// The keys that verify ServiceAccount tokens, the one of the key that signs them first.
fn public_keys(config: &Config) -> Vec<PublicKey> {
    let own = config.service_account_key.public();
    let others = config.settings.public_keys.iter().filter(|key| key.id() != own.id()).cloned();
    std::iter::once(own.clone()).chain(others).collect()
}

/// How long a request may take: what it asks for, within the server's bound
/// (`k8s.io/apiserver/pkg/endpoints/filters/request_deadline.go`).
fn request_timeout(query: &Query, longest: Duration) -> Result<Duration, Status> {
    let Some(asked) = query.get("timeout").filter(|asked| !asked.is_empty()) else {
        return Ok(longest);
    };
    let invalid = |_| {
        Status::bad_request(format!("invalid timeout specified in the request URL - time: invalid duration {asked:?}"))
    };
    let asked = Duration::try_from(parse_duration(asked).map_err(invalid)?);
    // None, or one that is over already, is not heeded.
    Ok(asked.ok().filter(|asked| !asked.is_zero()).map_or(longest, |asked| longest.min(asked)))
}

/// The answer to a request that got no seat (`k8s.io/apiserver/pkg/server/filters/maxinflight.go` `tooManyRequests`).
fn too_many_requests(reply: &Reply) -> Response<Body> {
    let mut response = reply.text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    response
}

/// Whether a patch is a server-side apply.
fn is_apply(info: &RequestInfo, headers: &http::HeaderMap) -> bool {
    info.verb == "patch"
        && headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| kind == "application/apply-patch+yaml")
}

fn panicked(info: &RequestInfo) -> Status {
    let mut status = Status::internal_error("");
    status.message =
        format!("This request caused apiserver to panic. Look in the logs for details. ({} {})", info.verb, info.path);
    status
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// An [`ApiServer`] as a tower service. Clones share the server.
#[derive(Clone)]
pub struct ApiService(Arc<ApiServer>);

impl tower::Service<HttpRequest<Body>> for ApiService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let server = Arc::clone(&self.0);
        Box::pin(async move { Ok(server.handle(request).await) })
    }
}
