//! ServiceAccount tokens on request: the subresource `serviceaccounts/token`, and the documents by which others can verify
//! what this server signs.
//!
//! ```text
//!  TokenRequest ─► account, bound object (pod, node, secret) ─► Claims ─► SigningKey ─► status.token
//! ```
//! A token is bound: it dies with the account, with what it is bound to, and by itself after `expirationSeconds`.
//!
//! Mirrors `pkg/registry/core/serviceaccount/storage/token.go` and `pkg/serviceaccount/{claims,openidmetadata}.go`.

use std::sync::Arc;

use jiff::SignedDuration;
use minik8s_api::{
    kinds::{GroupKind, GroupResource},
    status::{FieldError, FieldPath, Status},
};
use minik8s_clock::{Clock, Random};
use serde_json::{Value, json};

use crate::{
    audit::AuditContext,
    authn::{
        jwt::{self, PublicKey, SigningKey},
        service_account::{Bound, Claims, Reference},
    },
    cache::{Object, Objects},
    identity::service_account_name,
};

/// The issuer of a cluster's tokens unless it is told another.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How long a token lives if nobody says.
pub const DEFAULT_EXPIRATION_SECONDS: i64 = 3600;
/// What the projected volume of every pod asks for: an hour, and a little to tell it by. Such tokens are good for
/// [`EXTENDED_SECONDS`], because old clients read the file only once.
pub const PROJECTED_EXPIRATION_SECONDS: i64 = 3607;

/// The audit annotation that names a token that was made.
const ISSUED_CREDENTIAL_ID: &str = "authentication.kubernetes.io/issued-credential-id";
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;
const MIN_EXPIRATION_SECONDS: i64 = 10 * 60;
const MAX_EXPIRATION_SECONDS: i64 = 1 << 32;

/// Makes tokens.
pub struct Tokens {
    objects: Arc<dyn Objects>,
    clock: Clock,
    random: Random,
    key: SigningKey,
    /// Those that verify, the one of `key` among them.
    public_keys: Vec<PublicKey>,
    issuer: String,
    /// Names of this API server: what a token is for if its request does not say.
    audiences: Vec<String>,
}

/// What a token is to be bound to, looked up.
#[derive(Default)]
struct BoundTo {
    pod: Option<Arc<Object>>,
    node: Option<Reference>,
    secret: Option<Arc<Object>>,
}

fn reference(object: &Object) -> Reference {
    Reference { name: object.name().to_owned(), uid: object.uid().to_owned() }
}

impl Tokens {
    /// Signs with `key` as `issuer`; `public_keys` are shown to those who verify.
    pub fn new(
        objects: Arc<dyn Objects>,
        clock: Clock,
        random: Random,
        key: SigningKey,
        public_keys: Vec<PublicKey>,
        issuer: &str,
        audiences: Vec<String>,
    ) -> Tokens {
        Tokens { objects, clock, random, key, public_keys, issuer: issuer.to_owned(), audiences }
    }

    /// What a decoded `TokenRequest` asks for where it does not say it.
    pub fn set_defaults(request: &mut Value) {
        if request["spec"]["expirationSeconds"].is_null() {
            request["spec"]["expirationSeconds"] = DEFAULT_EXPIRATION_SECONDS.into();
        }
    }

    /// Checks a `TokenRequest` for an account and fills in what the account and this server know: what validating admission
    /// sees (`pkg/registry/core/serviceaccount/storage/token.go`).
    pub fn prepare(&self, namespace: &str, name: &str, request: &mut Value) -> Result<(), Status> {
        let kind = GroupKind::new("authentication.k8s.io", "TokenRequest");
        for (field, own) in [("name", name), ("namespace", namespace)] {
            let said = text(&request["metadata"], field);
            if !said.is_empty() && said != own {
                let detail = format!("must match the service account {field} if specified");
                let error = FieldError::invalid(&FieldPath::new("metadata").child(field), said, detail);
                return Err(Status::invalid(&kind, name, vec![error]));
            }
        }
        let account = self.get("serviceaccounts", namespace, name)?;
        let (asked, uid) = (text(&request["metadata"], "uid"), account.uid());
        if !asked.is_empty() && asked != uid {
            let why =
                format!("the UID in the token request ({asked}) does not match the UID of the service account ({uid})");
            return Err(Status::conflict(&GroupResource::new("authentication.k8s.io", "TokenRequest"), name, why));
        }
        let now = shown(self.clock.now());
        for (field, value) in [("name", name), ("namespace", namespace), ("uid", uid), ("creationTimestamp", &now)] {
            request["metadata"][field] = json!(value);
        }
        if strings(request.pointer("/spec/audiences")).is_empty() {
            request["spec"]["audiences"] = json!(self.audiences);
        }
        request["status"] = json!({ "token": "", "expirationTimestamp": null });
        validate_expiration(seconds_of(request))
    }

    /// Answers a `TokenRequest` that is [prepared](Tokens::prepare): the request with its token. Its credential ID goes into the
    /// audit log.
    pub fn issue(
        &self,
        namespace: &str,
        name: &str,
        mut request: Value,
        audit: &AuditContext,
    ) -> Result<Value, Status> {
        let account = self.get("serviceaccounts", namespace, name)?;
        let audiences: Vec<String> = strings(request.pointer("/spec/audiences"));
        let seconds = seconds_of(&request);
        let bound_reference = request.pointer("/spec/boundObjectRef").cloned().unwrap_or(Value::Null);
        let bound = self.bound_to(namespace, name, &bound_reference)?;

        let now = self.clock.now();
        let for_this_server = audiences.iter().all(|audience| self.audiences.contains(audience));
        let extended = bound.pod.is_some() && seconds == PROJECTED_EXPIRATION_SECONDS && for_this_server;
        let claims = Claims {
            aud: audiences.clone(),
            exp: now.as_second() + if extended { EXTENDED_SECONDS } else { seconds },
            iat: now.as_second(),
            iss: self.issuer.clone(),
            jti: self.random.uuid(),
            bound: Bound {
                namespace: namespace.to_owned(),
                node: bound.node,
                pod: bound.pod.as_deref().map(reference),
                secret: bound.secret.as_deref().map(reference),
                serviceaccount: reference(&account),
                warnafter: extended.then_some(now.as_second() + seconds),
            },
            nbf: now.as_second(),
            sub: service_account_name(namespace, name),
        };
        let token = jwt::sign(&self.key, &claims)
            .map_err(|error| Status::internal_error(format!("failed to generate token: {error}")))?;

        audit.annotate(ISSUED_CREDENTIAL_ID, format!("JTI={}", claims.jti));

        let expires = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(jiff::Timestamp::MAX);
        request["kind"] = json!("TokenRequest");
        request["apiVersion"] = json!("authentication.k8s.io/v1");
        request["spec"] =
            json!({ "audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound_reference });
        request["status"] = json!({ "token": token, "expirationTimestamp": shown(expires) });
        Ok(request)
    }

    fn get(&self, resource: &str, namespace: &str, name: &str) -> Result<Arc<Object>, Status> {
        if name.is_empty() {
            return Err(Status::bad_request("Name parameter required."));
        }
        let resource = GroupResource::new("", resource);
        self.objects.get(&resource, namespace, name).ok_or_else(|| Status::not_found(&resource, name))
    }

    fn bound_to(&self, namespace: &str, account: &str, wanted: &Value) -> Result<BoundTo, Status> {
        if wanted.is_null() {
            return Ok(BoundTo::default());
        }
        let text = |field: &str| wanted.get(field).and_then(Value::as_str).unwrap_or_default();
        let (name, kind) = (text("name"), text("kind"));
        let mut bound = BoundTo::default();
        let uid = match (text("apiVersion"), kind) {
            ("v1", "Pod") => {
                let pod = self.get("pods", namespace, name)?;
                let spec = pod.value();
                let of = |path: &str| spec.pointer(path).and_then(Value::as_str).unwrap_or_default();
                if of("/spec/serviceAccountName") != account {
                    let message = format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                    );
                    return Err(Status::bad_request(message));
                }
                let node = of("/spec/nodeName");
                if !node.is_empty() {
                    // A pod may name a node that is gone, or not there yet.
                    let uid = self.get("nodes", "", node).map(|node| node.uid().to_owned()).unwrap_or_default();
                    bound.node = Some(Reference { name: node.to_owned(), uid });
                }
                bound.pod.insert(pod).uid().to_owned()
            }
            ("v1", "Node") => {
                let node = reference(&*self.get("nodes", "", name)?);
                bound.node.insert(node).uid.clone()
            }
            ("v1", "Secret") => bound.secret.insert(self.get("secrets", namespace, name)?).uid().to_owned(),
            (version, _) => {
                let (group, version) = version.split_once('/').unwrap_or(("", version));
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {group}/{version}, Kind={kind}"
                )));
            }
        };
        if !text("uid").is_empty() && text("uid") != uid {
            let message = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                text("uid")
            );
            return Err(Status::conflict(&GroupResource::new("", kind), name, message));
        }
        Ok(bound)
    }

    /// `/openid/v1/jwks`: the public keys (`application/jwk-set+json`).
    pub fn key_set(&self) -> Value {
        jwt::key_set(&self.public_keys)
    }

    /// `/.well-known/openid-configuration`; `address` is how the outside reaches this server (`host:port`).
    pub fn openid_configuration(&self, address: &str) -> Value {
        let mut algorithms: Vec<&str> = self.public_keys.iter().map(PublicKey::algorithm).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("https://{address}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

fn shown(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// For how long a token is asked for.
fn seconds_of(request: &Value) -> i64 {
    request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_EXPIRATION_SECONDS)
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// `pkg/apis/authentication/validation/validation.go`.
fn validate_expiration(seconds: i64) -> Result<(), Status> {
    let detail = if seconds < MIN_EXPIRATION_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_EXPIRATION_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let error = FieldError::invalid(&FieldPath::new("spec.expirationSeconds"), seconds, detail);
    Err(Status::invalid(&GroupKind::new("authentication.k8s.io", "TokenRequest"), "", vec![error]))
}
