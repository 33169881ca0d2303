//! Admission webhooks: servers that are asked about writes, and may change (mutating) or refuse them.
//!
//! ```text
//!  write ─ matching ─ match conditions ─► AdmissionReview ── HTTPS ──► url, or an endpoint of a Service
//!                                                                          │ allowed? patch, warnings
//!                                     refusal, or failurePolicy  ◄─────────┘
//! ```
//! Mutating webhooks are asked one after the other, in the order of their configurations' names; validating ones all at
//! once. [`configuration`] reads them, [`crate::outgoing`] calls them, [`review`] is what is said.
//! `k8s.io/apiserver/pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go`.
//!
//! Left out, compared with Kubernetes: reviews of `v1beta1`, and a kubeconfig for calls that need credentials.

mod configuration;
mod review;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use minik8s_api::kinds::GroupResource;
use minik8s_api::patch::json;
use minik8s_api::status::Status;
use minik8s_clock::Random;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use self::configuration::Webhook;
use super::expressions::{Activation, namespace_of};
use super::times::WebhookTimes;
use super::view::View;
use super::{Attributes, Cluster, Plugin, matching};
use crate::audit::policy::Level;
use crate::authz::Authorizer;
use crate::crd::Converter;
use crate::outgoing::Outgoing;
use crate::outgoing::webhook::Bounds;

/// How much of an answer is read.
const MAX_ANSWER_BYTES: usize = 3 * 1024 * 1024;

/// Why a webhook did not let a write pass.
enum Failure {
    /// It said no, or cannot be asked about this: no failure policy helps.
    Refused(Status),
    /// It could not be asked, or answered nonsense.
    Broken(String),
}

/// What both kinds of webhooks need.
struct Webhooks {
    resource: GroupResource,
    outgoing: Outgoing,
    converter: Arc<Converter>,
    authorizer: Arc<dyn Authorizer>,
    random: Random,
    times: Arc<WebhookTimes>,
    /// Compiled, and of which version of the configurations.
    compiled: Mutex<(u64, Arc<[Webhook]>)>,
}

impl Webhooks {
    fn new(cluster: &Cluster, resource: &str, times: &Arc<WebhookTimes>) -> Webhooks {
        Webhooks {
            resource: GroupResource::new("admissionregistration.k8s.io", resource),
            outgoing: cluster.outgoing.clone(),
            converter: Arc::clone(&cluster.converter),
            authorizer: Arc::clone(&cluster.authorizer),
            random: cluster.random.fork(),
            times: Arc::clone(times),
            compiled: Mutex::new((0, Arc::new([]))),
        }
    }

    fn all(&self) -> Arc<[Webhook]> {
        let mut compiled = self.compiled.lock();
        let version = self.outgoing.objects().version(&self.resource);
        if compiled.0 != version {
            let configurations = self.outgoing.objects().list(&self.resource, None);
            let all =
                configurations.iter().flat_map(|one| configuration::webhooks(&one.value(), self.outgoing.clock()));
            *compiled = (version, all.collect());
        }
        Arc::clone(&compiled.1)
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        !matching::is_exempt(write) && !self.all().is_empty()
    }

    /// The write as a webhook is asked about it; `None` if it is not asked.
    async fn view(&self, webhook: &Webhook, write: &Attributes<'_>) -> Result<Option<View>, Status> {
        let world = &**self.outgoing.objects();
        let matching = webhook.matching.as_ref().map_err(Status::internal_error)?;
        let Some(row) = matching.matches(write, world)? else { return Ok(None) };
        let view = View::new(write, &world.kinds(), &self.converter, row).await?;
        if webhook.conditions.is_empty() {
            return Ok(Some(view));
        }
        let namespace = namespace_of(write, world)?;
        let mut activation = Activation::new(write, &view, world, &self.authorizer, namespace, None);
        match activation.conditions(&webhook.conditions) {
            Ok(holds) => Ok(holds.then_some(view)),
            Err(_) if webhook.ignores_failure => Ok(None),
            Err(error) => Err(write.forbidden(error)),
        }
    }

    /// Asks a webhook; the patch of a mutating one.
    async fn call(&self, webhook: &Webhook, write: &Attributes<'_>, view: &View) -> Result<Option<Value>, Failure> {
        if write.dry_run && !webhook.allows_dry_run {
            let words = format!("admission webhook {:?} does not support dry run", webhook.name);
            return Err(Failure::Refused(Status::bad_request(words)));
        }
        if !webhook.speaks_v1 {
            let words = "webhook does not accept known AdmissionReview versions (v1)";
            return Err(Failure::Broken(words.to_owned()));
        }
        let uid = self.random.uuid();
        let asked = review::request(view, write, &self.outgoing.objects().kinds(), &uid);
        let client = webhook.client.as_ref().map_err(|error| Failure::Broken(error.clone()))?;
        let bounds = Bounds { timeout: webhook.timeout, answer_bytes: MAX_ANSWER_BYTES };
        let began = self.outgoing.clock().monotonic();
        let answer = client.post(&self.outgoing, &asked, bounds).await;
        let took = self.outgoing.clock().monotonic().saturating_sub(began);
        let refused = !answer.as_ref().is_ok_and(|answer| answer["response"]["allowed"] == true);
        self.times.called(&webhook.name, write.operation, self.step(), refused, took);
        let answer = answer.map_err(|error| Failure::Broken(format!("failed to call webhook: {error}")))?;
        let mutating = self.resource.resource.starts_with("mutating");
        let answer = review::read(&answer, &uid, mutating)
            .map_err(|error| Failure::Broken(format!("received invalid webhook response: {error}")))?;
        answer.warnings.into_iter().for_each(|warning| write.warn(warning));
        for (key, value) in answer.audit_annotations {
            write.audit.annotate(format!("{}/{key}", webhook.name), value);
        }
        if answer.allowed {
            Ok(answer.patch)
        } else {
            Err(Failure::Refused(review::refusal(&webhook.name, &answer.status)))
        }
    }

    /// How Kubernetes' metrics name the calls of these webhooks.
    fn step(&self) -> &'static str {
        if self.resource.resource.starts_with("mutating") { "admit" } else { "validating" }
    }

    /// What a failure means for the write. `place`: where among the webhooks asked it stands, for the audit log.
    fn judge(&self, webhook: &Webhook, failure: Failure, write: &Attributes<'_>, place: &str) -> Result<(), Status> {
        match failure {
            Failure::Refused(status) => Err(status),
            Failure::Broken(error) if webhook.ignores_failure => {
                tracing::warn!(webhook = webhook.name, error, "a webhook failed and is passed over");
                let kind = if self.resource.resource.starts_with("mutating") { "mutation" } else { "validating" };
                self.times.pass_over(&webhook.name, self.step());
                write.audit.annotate(format!("failed-open.{kind}.{ANNOTATIONS}/{place}"), webhook.name.as_str());
                Ok(())
            }
            Failure::Broken(error) => {
                Err(Status::internal_error(format!("failed calling webhook {:?}: {error}", webhook.name)))
            }
        }
    }
}

/// The end of the keys of what the audit log says of webhooks.
const ANNOTATIONS: &str = "webhook.admission.k8s.io";

/// What the audit log says of a call of a mutating webhook, in the order in which Kubernetes writes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallRecord<'a> {
    configuration: &'a str,
    webhook: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
}

impl CallRecord<'_> {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("a record has only string keys")
    }
}

/// The plugin `MutatingAdmissionWebhook`.
pub struct MutatingWebhooks(Webhooks);

impl MutatingWebhooks {
    const NAME: &str = "MutatingAdmissionWebhook";

    /// The webhooks that a cluster's objects configure.
    pub(super) fn new(cluster: &Cluster, times: &Arc<WebhookTimes>) -> MutatingWebhooks {
        MutatingWebhooks(Webhooks::new(cluster, "mutatingwebhookconfigurations", times))
    }

    /// Asks a webhook, changes the object as it says, and records both. Whether that changed anything.
    async fn ask(
        &self,
        webhook: &Webhook,
        write: &mut Attributes<'_>,
        view: View,
        place: &str,
    ) -> Result<bool, Failure> {
        let mutated = self.mutate(webhook, write, view, place).await;
        let configuration = webhook.configuration();
        let changed = matches!(mutated, Ok(true));
        let record =
            CallRecord { configuration, webhook: &webhook.name, mutated: Some(changed), patch: None, patch_type: None };
        write.audit.annotate(format!("mutation.{ANNOTATIONS}/{place}"), record.text());
        mutated
    }

    async fn mutate(
        &self,
        webhook: &Webhook,
        write: &mut Attributes<'_>,
        mut view: View,
        place: &str,
    ) -> Result<bool, Failure> {
        let Some(patch) = self.0.call(webhook, write, &view).await? else { return Ok(false) };
        if view.object.is_null() {
            let words = "attempted to modify the object, which is not supported for this operation";
            let refusal = Status::internal_error(format!("admission webhook {:?} {words}", webhook.name));
            return Err(Failure::Refused(refusal));
        }
        let before = view.object.clone();
        let wrong = |error: String| Failure::Refused(Status::internal_error(error));
        json::apply(&mut view.object, &patch).map_err(|error| wrong(error.to_string()))?;
        if view.object == before {
            return Ok(false);
        }
        let patched = view.object.clone();
        view.accept(write, &patched).map_err(wrong)?;
        let kinds = self.0.outgoing.objects().kinds();
        let object = view.written(write, &kinds, &self.0.converter).await;
        let object = object.map_err(|status| wrong(status.message))?;
        let changed = write.object.as_ref() != Some(&object);
        write.object = Some(object);
        if changed {
            let record = CallRecord {
                configuration: webhook.configuration(),
                webhook: &webhook.name,
                mutated: None,
                patch: Some(&patch),
                patch_type: Some("JSONPatch"),
            };
            write.audit.annotate_at(Level::Request, format!("patch.{ANNOTATIONS}/{place}"), record.text());
        }
        Ok(changed)
    }
}

#[async_trait]
impl Plugin for MutatingWebhooks {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        self.0.handles(write)
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        write.reinvocation.begin(Self::NAME, write.object.as_ref());
        for (index, webhook) in self.0.all().iter().enumerate() {
            let Some(view) = self.0.view(webhook, write).await? else { continue };
            if !write.reinvocation.calls(Self::NAME, &webhook.id) {
                continue;
            }
            let place = format!("round_{}_index_{index}", write.reinvocation.round());
            let changed = match self.ask(webhook, write, view, &place).await {
                Ok(changed) => changed,
                Err(failure) => {
                    self.0.judge(webhook, failure, write, &place)?;
                    false
                }
            };
            write.reinvocation.called(Self::NAME, &webhook.id, changed, webhook.reinvoked);
        }
        write.reinvocation.end(Self::NAME, write.object.as_ref());
        Ok(())
    }
}

/// The plugin `ValidatingAdmissionWebhook`.
pub struct ValidatingWebhooks(Webhooks);

impl ValidatingWebhooks {
    /// The webhooks that a cluster's objects configure.
    pub(super) fn new(cluster: &Cluster, times: &Arc<WebhookTimes>) -> ValidatingWebhooks {
        ValidatingWebhooks(Webhooks::new(cluster, "validatingwebhookconfigurations", times))
    }
}

#[async_trait]
impl Plugin for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        self.0.handles(write)
    }

    async fn validate(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let webhooks = self.0.all();
        let mut asked = Vec::new();
        for webhook in webhooks.iter() {
            if let Some(view) = self.0.view(webhook, write).await? {
                asked.push((webhook, view));
            }
        }
        let answers = join_all(asked.iter().map(|(webhook, view)| self.0.call(webhook, write, view))).await;
        let judged = asked.iter().zip(answers).enumerate().map(|(index, ((webhook, _), answer))| match answer {
            Ok(_) => Ok(()),
            Err(failure) => self.0.judge(webhook, failure, write, &format!("round_0_index_{index}")),
        });
        // All are heard, the first refusal is told.
        judged.collect::<Vec<_>>().into_iter().collect()
    }
}
