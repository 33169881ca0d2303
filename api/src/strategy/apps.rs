//! Deployments, ReplicaSets, StatefulSets, DaemonSets and ControllerRevisions.
//! Mirrors `pkg/apis/apps/{v1/defaults.go,validation/validation.go}` and `pkg/registry/apps`.
use serde_json::Value;

use super::built_in::Behavior;
use super::core::claim;
use super::field::{Errors, Field};
use super::{Context, ScalePaths, Subresource, edit, names, pod};

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// A count or a share: what is wrong with it.
pub fn positive_int_or_percent(field: &Field<'_>, errors: &mut Errors) {
    match field.value() {
        Value::String(text) => field.check(names::percent(text), errors),
        Value::Number(_) => field.non_negative(errors),
        _ => {}
    }
}

fn at_most_all(field: &Field<'_>, errors: &mut Errors) {
    if names::percent_value(field.str()).is_some_and(|share| share > 100) {
        errors.push(field.invalid("must not be greater than 100%"));
    }
}

fn is_zero(field: &Field<'_>) -> bool {
    field.int() == Some(0) || names::percent_value(field.str()) == Some(0)
}

/// Whether a count or a share is anything; a text that is neither counts for nothing.
fn counts(field: &Field<'_>) -> bool {
    field.int().or(names::percent_value(field.str())).is_some_and(|number| number != 0)
}

/// Pods of these kinds are replaced when they end, so they must always restart and never time out.
fn long_running_template(template: &Field<'_>, errors: &mut Errors) {
    let policy = template.get("spec").get("restartPolicy");
    if policy.str() != "Always" {
        errors.push(policy.not_supported(&["Always"]));
    }
    let deadline = template.get("spec").get("activeDeadlineSeconds");
    if deadline.is_set() {
        errors.push(deadline.forbidden("activeDeadlineSeconds in ReplicaSet is not Supported"));
    }
}

fn template_of_update(object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
    let template = object.get("spec").get("template");
    if old.is_none_or(|old| old.pointer("/spec/template") != Some(template.value())) {
        pod::template_warnings(&template, warnings);
    }
}

fn template_defaults(object: &mut Value) -> &mut Value {
    let spec = edit::child(object, "spec");
    if let Some(template) = edit::member(spec, "template") {
        pod::set_pod_template_defaults(template);
    }
    spec
}

/// `apps/v1` Deployment.
pub struct Deployment;

impl Behavior for Deployment {
    fn set_defaults(&self, object: &mut Value) {
        let spec = template_defaults(object);
        edit::default(spec, "replicas", 1);
        edit::default(spec, "revisionHistoryLimit", 10);
        edit::default(spec, "progressDeadlineSeconds", 600);
        let strategy = edit::child(spec, "strategy");
        edit::default_text(strategy, "type", "RollingUpdate");
        if edit::text(strategy, "type") == "RollingUpdate" {
            let rolling = edit::child(strategy, "rollingUpdate");
            edit::default(rolling, "maxUnavailable", "25%");
            edit::default(rolling, "maxSurge", "25%");
        }
    }

    fn prepare_for_update(&self, _: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource == Subresource::Status {
            edit::keep(edit::child(new, "metadata"), &old["metadata"], "labels");
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        spec.get("replicas").non_negative(errors);
        if let Some(template) = pod::validate_selected_template(&spec, "deployment", errors) {
            long_running_template(&template, errors);
        }
        deployment_strategy(&spec.get("strategy"), errors);
        let (ready, deadline) = (spec.get("minReadySeconds"), spec.get("progressDeadlineSeconds"));
        ready.non_negative(errors);
        spec.get("revisionHistoryLimit").non_negative(errors);
        deadline.non_negative(errors);
        if deadline.int().is_some_and(|seconds| seconds <= ready.int().unwrap_or(0)) {
            errors.push(deadline.invalid("must be greater than minReadySeconds"));
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            validate_counts(&DEPLOYMENT, new, old, errors);
            return;
        }
        self.validate(new, errors);
        new.get("spec").get("selector").immutable(&old.get("spec").get("selector"), errors);
    }

    fn warnings(&self, object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
        template_of_update(object, old, warnings);
    }

    fn scale_paths(&self) -> Option<ScalePaths> {
        Some(ScalePaths::WORKLOAD)
    }

    fn pod_template_paths(&self) -> &'static [&'static str] {
        &["/spec/template"]
    }
}

fn deployment_strategy(strategy: &Field<'_>, errors: &mut Errors) {
    let (kind, rolling) = (strategy.get("type"), strategy.get("rollingUpdate"));
    match kind.str() {
        "Recreate" => {
            if rolling.is_set() {
                errors.push(rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"));
            }
        }
        "RollingUpdate" => match rolling.set() {
            None => errors.push(rolling.required("this should be defaulted and never be nil")),
            Some(rolling) => {
                let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
                positive_int_or_percent(&unavailable, errors);
                positive_int_or_percent(&surge, errors);
                if is_zero(&unavailable) && is_zero(&surge) {
                    errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
                }
                at_most_all(&unavailable, errors);
            }
        },
        _ => errors.push(strategy.not_supported(&["Recreate", "RollingUpdate"]).showing(shown_strategy(
            strategy,
            "maxUnavailable",
            "maxSurge",
            0.into(),
        ))),
    }
}

/// An update strategy as Kubernetes has it inside, with the two members of its rolling update.
/// An absent amount is 0 there where `absent` says so.
fn shown_strategy(strategy: &Field<'_>, first: &'static str, second: &'static str, absent: Value) -> String {
    let upper = |name: &str| name[..1].to_uppercase() + &name[1..];
    let rolling = strategy.get("rollingUpdate").set().map_or("null".to_owned(), |rolling| {
        rolling.internal(&[(&upper(first), first, absent.clone()), (&upper(second), second, absent.clone())])
    });
    format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", Value::from(strategy.get("type").str()))
}

/// The counts of a status: which may not be negative, in Kubernetes' order; which may not be above the replicas; how the ready ones are
/// called where more are available than ready.
pub(super) struct Counts {
    pub all: &'static [&'static str],
    pub within: &'static [&'static str],
    pub ready: &'static str,
}

const DEPLOYMENT: Counts = Counts {
    all: &[
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ],
    within: &["updatedReplicas", "readyReplicas", "availableReplicas"],
    ready: "readyReplicas",
};
const STATEFUL_SET: Counts = Counts {
    all: &[
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ],
    within: &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
    ready: "status.readyReplicas",
};
const DAEMON_SET: Counts = Counts {
    all: &[
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ],
    within: &[],
    ready: "",
};
pub(super) const REPLICA_SET: Counts = Counts {
    all: &[
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ],
    within: &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
    ready: "readyReplicas",
};

/// What is wrong with the counts of a status, and with one that went back.
pub(super) fn validate_counts(counts: &Counts, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (status, before) = (new.get("status"), old.get("status"));
    for name in counts.all {
        status.get(name).non_negative(errors);
    }
    let count = |name| status.get(name).int().unwrap_or(0);
    for name in counts.within {
        if count(name) > count("replicas") {
            errors.push(status.get(name).invalid_as(count(name), "cannot be greater than status.replicas"));
        }
    }
    if !counts.ready.is_empty() && count("availableReplicas") > count("readyReplicas") {
        let available = status.get("availableReplicas");
        errors.push(available.invalid(format!("cannot be greater than {}", counts.ready)));
    }
    let collisions = before.get("collisionCount").int().filter(|_| counts.all.contains(&"collisionCount"));
    if collisions.is_some_and(|before| count("collisionCount") < before) {
        errors.push(status.get("collisionCount").invalid_as(count("collisionCount"), "cannot be decremented"));
    }
}

/// `apps/v1` ReplicaSet.
pub struct ReplicaSet;

impl Behavior for ReplicaSet {
    fn set_defaults(&self, object: &mut Value) {
        edit::default(template_defaults(object), "replicas", 1);
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        spec.get("replicas").non_negative(errors);
        spec.get("minReadySeconds").non_negative(errors);
        // Kubernetes says "deployment" here too.
        if let Some(template) = pod::validate_selected_template(&spec, "deployment", errors) {
            long_running_template(&template, errors);
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            validate_counts(&REPLICA_SET, new, old, errors);
            return;
        }
        self.validate(new, errors);
        new.get("spec").get("selector").immutable(&old.get("spec").get("selector"), errors);
    }

    fn warnings(&self, object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
        template_of_update(object, old, warnings);
    }

    fn scale_paths(&self) -> Option<ScalePaths> {
        Some(ScalePaths::WORKLOAD)
    }

    fn pod_template_paths(&self) -> &'static [&'static str] {
        &["/spec/template"]
    }
}

/// `apps/v1` StatefulSet.
pub struct StatefulSet;

impl StatefulSet {
    /// What is wrong with a spec. Templates of claims never change, so they are looked at when they come.
    fn check(&self, spec: &Field<'_>, new: bool, errors: &mut Errors) {
        let policy = spec.get("podManagementPolicy");
        match policy.str() {
            "" => errors.push(policy.required("")),
            "OrderedReady" | "Parallel" => {}
            _ => errors.push(policy.invalid("must be 'OrderedReady' or 'Parallel'")),
        }
        stateful_update_strategy(&spec.get("updateStrategy"), errors);
        let retention = spec.get("persistentVolumeClaimRetentionPolicy");
        for name in ["whenDeleted", "whenScaled"] {
            let policy = retention.get(name);
            if retention.is_set() && !["Retain", "Delete"].contains(&policy.str()) {
                errors.push(policy.not_supported(&["Retain", "Delete"]));
            }
        }
        if new {
            for template in spec.get("volumeClaimTemplates").items() {
                claim::validate_spec(&template.get("spec"), errors);
            }
        }
        spec.get("replicas").non_negative(errors);
        spec.get("minReadySeconds").non_negative(errors);
        spec.get("ordinals").get("start").non_negative(errors);
        let service = spec.get("serviceName");
        if new && !service.is_empty() {
            service.check(names::dns1123_label(service.str()), errors);
        }
        pod::validate_stateful_template(spec, errors);
        let policy = spec.get("template").get("spec").get("restartPolicy");
        if spec.get("template").is_set() && policy.str() != "Always" {
            errors.push(policy.not_supported(&["Always"]));
        }
        let deadline = spec.get("template").get("spec").get("activeDeadlineSeconds");
        if deadline.is_set() {
            errors.push(deadline.forbidden("activeDeadlineSeconds in StatefulSet is not Supported"));
        }
    }
}

impl Behavior for StatefulSet {
    fn set_defaults(&self, object: &mut Value) {
        let spec = template_defaults(object);
        edit::default_text(spec, "podManagementPolicy", "OrderedReady");
        edit::default(spec, "replicas", 1);
        edit::default(spec, "revisionHistoryLimit", 10);
        let strategy = edit::child(spec, "updateStrategy");
        if edit::text(strategy, "type").is_empty() {
            edit::set(strategy, "type", "RollingUpdate");
            edit::default(strategy, "rollingUpdate", serde_json::json!({}));
        }
        // A client that says the type and no more gets no more.
        if edit::text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = edit::member(strategy, "rollingUpdate")
        {
            edit::default(rolling, "partition", 0);
            edit::default(rolling, "maxUnavailable", 1);
        }
        let retention = edit::child(spec, "persistentVolumeClaimRetentionPolicy");
        edit::default_text(retention, "whenDeleted", "Retain");
        edit::default_text(retention, "whenScaled", "Retain");
        for template in edit::each(spec, "volumeClaimTemplates") {
            edit::set(template, "kind", "PersistentVolumeClaim");
            edit::set(template, "apiVersion", "v1");
            claim::set_claim_defaults(template);
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        self.check(&object.get("spec"), true, errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            validate_counts(&STATEFUL_SET, new, old, errors);
            return;
        }
        self.check(&new.get("spec"), false, errors);
        for name in ["selector", "volumeClaimTemplates", "serviceName", "podManagementPolicy"] {
            new.get("spec").get(name).immutable(&old.get("spec").get(name), errors);
        }
    }

    fn warnings(&self, object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
        template_of_update(object, old, warnings);
        let part = if old.is_some() { "Spec" } else { "" };
        for template in object.get("spec").get("volumeClaimTemplates").items() {
            let place = if part.is_empty() { template.clone() } else { template.get(part) };
            claim::spec_warnings(&place.with(template.get("spec").value()), warnings);
        }
        if object.get("spec").get("revisionHistoryLimit").int().is_some_and(|limit| limit < 0) {
            warnings.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
    }

    fn scale_paths(&self) -> Option<ScalePaths> {
        Some(ScalePaths::WORKLOAD)
    }

    fn pod_template_paths(&self) -> &'static [&'static str] {
        &["/spec/template"]
    }
}

fn stateful_update_strategy(strategy: &Field<'_>, errors: &mut Errors) {
    let (kind, rolling) = (strategy.get("type"), strategy.get("rollingUpdate"));
    match kind.str() {
        "" => errors.push(kind.required("")),
        "OnDelete" => {
            if rolling.is_set() {
                errors.push(rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"));
            }
        }
        "RollingUpdate" => {
            rolling.get("partition").non_negative(errors);
            let unavailable = rolling.get("maxUnavailable");
            positive_int_or_percent(&unavailable, errors);
            if is_zero(&unavailable) {
                errors.push(unavailable.invalid("cannot be 0"));
            }
            at_most_all(&unavailable, errors);
        }
        _ => errors.push(strategy.invalid("must be 'RollingUpdate' or 'OnDelete'").showing(shown_strategy(
            strategy,
            "partition",
            "maxUnavailable",
            Value::Null,
        ))),
    }
}

/// `apps/v1` DaemonSet. An annotation counts its template's generations, as a removed field once did.
pub struct DaemonSet;

impl Behavior for DaemonSet {
    fn set_defaults(&self, object: &mut Value) {
        let spec = template_defaults(object);
        edit::default(spec, "revisionHistoryLimit", 10);
        let strategy = edit::child(spec, "updateStrategy");
        edit::default_text(strategy, "type", "RollingUpdate");
        if edit::text(strategy, "type") == "RollingUpdate" {
            let rolling = edit::child(strategy, "rollingUpdate");
            edit::default(rolling, "maxUnavailable", 1);
            edit::default(rolling, "maxSurge", 0);
        }
        if object["metadata"]["annotations"].get(TEMPLATE_GENERATION).is_none() {
            edit::annotate(object, TEMPLATE_GENERATION, "0");
        }
    }

    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        edit::annotate(object, TEMPLATE_GENERATION, "1");
    }

    fn prepare_for_update(&self, _: &Context<'_>, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource == Subresource::Status {
            if let Some(kept) = old["metadata"]["annotations"][TEMPLATE_GENERATION].as_str() {
                edit::annotate(new, TEMPLATE_GENERATION, kept);
            }
            return;
        }
        let count = old["metadata"]["annotations"][TEMPLATE_GENERATION]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or(1u64);
        let moved = new["spec"]["template"] != old["spec"]["template"];
        edit::annotate(new, TEMPLATE_GENERATION, &(count + u64::from(moved)).to_string());
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        pod::validate_daemon_template(&spec, errors);
        let template = spec.get("template").get("spec");
        if spec.get("template").is_set() && template.get("restartPolicy").str() != "Always" {
            errors.push(template.get("restartPolicy").not_supported(&["Always"]));
        }
        if template.get("activeDeadlineSeconds").is_set() {
            errors.push(
                template.get("activeDeadlineSeconds").forbidden("activeDeadlineSeconds in DaemonSet is not Supported"),
            );
        }
        spec.get("minReadySeconds").non_negative(errors);
        daemon_update_strategy(&spec.get("updateStrategy"), errors);
        spec.get("revisionHistoryLimit").non_negative(errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            validate_counts(&DAEMON_SET, new, old, errors);
            return;
        }
        self.validate(new, errors);
        new.get("spec").get("selector").immutable(&old.get("spec").get("selector"), errors);
    }

    fn warnings(&self, object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
        template_of_update(object, old, warnings);
    }

    fn pod_template_paths(&self) -> &'static [&'static str] {
        &["/spec/template"]
    }
}

fn daemon_update_strategy(strategy: &Field<'_>, errors: &mut Errors) {
    let (kind, rolling) = (strategy.get("type"), strategy.get("rollingUpdate"));
    match kind.str() {
        "OnDelete" => {}
        "RollingUpdate" => match rolling.set() {
            None => errors.push(rolling.required("")),
            Some(rolling) => {
                let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
                positive_int_or_percent(&unavailable, errors);
                positive_int_or_percent(&surge, errors);
                at_most_all(&unavailable, errors);
                at_most_all(&surge, errors);
                match (counts(&unavailable), counts(&surge)) {
                    (true, true) => errors.push(surge.invalid("may not be set when maxUnavailable is non-zero")),
                    (false, false) => errors.push(unavailable.required("cannot be 0 when maxSurge is 0")),
                    _ => {}
                }
            }
        },
        _ => errors.push(strategy.not_supported(&["RollingUpdate", "OnDelete"]).showing(shown_strategy(
            strategy,
            "maxUnavailable",
            "maxSurge",
            0.into(),
        ))),
    }
}

/// `apps/v1` ControllerRevision: a snapshot that never changes.
pub struct ControllerRevision;

impl Behavior for ControllerRevision {
    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        if !object.get("data").is_set() {
            errors.push(object.get("data").required("data is mandatory"));
        }
        object.get("revision").non_negative(errors);
    }

    fn validate_update(&self, _: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        self.validate(new, errors);
        new.get("data").immutable(&old.get("data"), errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_change_moves_the_daemon_sets_counter() {
        let context = Context::at(jiff::Timestamp::UNIX_EPOCH);
        let mut first = json!({"metadata": {}, "spec": {"template": {"a": 1}}});
        DaemonSet.prepare_for_create(&context, &mut first);
        let mut second = first.clone();
        second["spec"]["template"]["a"] = json!(2);
        DaemonSet.prepare_for_update(&context, Subresource::Main, &mut second, &first);
        assert_eq!(second["metadata"]["annotations"][TEMPLATE_GENERATION], "2");
    }
}
