//! Jobs and CronJobs. Mirrors `pkg/apis/batch/{v1/defaults.go,validation/validation.go}` and `pkg/registry/batch`.
pub mod cron;

use serde_json::{Value, json};

use super::built_in::Behavior;
use super::field::{Errors, Field};
use super::{Context, Subresource, edit, labels, names, pod};

/// Longest name of a CronJob: its jobs append eleven characters.
const CRON_JOB_NAME_MAX: usize = 52;
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const LEGACY_CONTROLLER_UID: &str = "controller-uid";
const LEGACY_JOB_NAME: &str = "job-name";
const EXIT_CODES_MAX: usize = 255;
const FAILURE_RULES_MAX: usize = 20;

/// `batch/v1` Job.
pub struct Job;

impl Behavior for Job {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        if let Some(template) = edit::member(spec, "template") {
            pod::set_pod_template_defaults(template);
        }
        // A work queue leaves completions out and says parallelism; a plain job says neither.
        if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
            edit::set(spec, "completions", 1);
        }
        edit::default(spec, "parallelism", 1);
        let limit = if spec.get("backoffLimitPerIndex").is_some() { i32::MAX } else { 6 };
        edit::default(spec, "backoffLimit", limit);
        edit::default(spec, "completionMode", "NonIndexed");
        edit::default(spec, "suspend", false);
        let replacement = if spec.get("podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
        edit::default(spec, "podReplacementPolicy", replacement);
        if let Some(policy) = edit::member(spec, "podFailurePolicy") {
            for rule in edit::each(policy, "rules") {
                for pattern in edit::each(rule, "onPodConditions") {
                    edit::default_text(pattern, "status", "True");
                }
            }
        }
        labels_from_template(object);
    }

    fn prepare_for_create(&self, _: &Context<'_>, object: &mut Value) {
        if object["spec"]["manualSelector"] != true {
            generate_selector(object);
        }
        labels_from_template(object);
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        if spec.get("manualSelector").value() != true {
            generated_selector(object, errors);
        }
        validate_job_spec(&spec, errors);
        let selector = spec.get("selector");
        let own = spec.get("template").get("metadata").get("labels");
        if !selector.is_set() {
            errors.push(selector.required(""));
        } else if !labels::matches(selector.value(), own.value()) {
            errors.push(own.invalid("`selector` does not match template `labels`"));
        }
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            for name in ["active", "succeeded", "failed", "ready", "terminating"] {
                new.get("status").get(name).non_negative(errors);
            }
            return;
        }
        let (spec, before) = (new.get("spec"), old.get("spec"));
        validate_job_spec(&spec, errors);
        let completions = spec.get("completions");
        let elastic =
            spec.get("completionMode").str() == "Indexed" && completions.int() == spec.get("parallelism").int();
        if completions.int() != before.get("completions").int() {
            if before.get("completionMode").str() != "Indexed" {
                completions.immutable(&before.get("completions"), errors);
            } else if !elastic {
                errors.push(completions.invalid("can only be modified in tandem with spec.parallelism"));
            }
        }
        spec.get("selector").immutable(&before.get("selector"), errors);
        template_update(&spec, &before, old, errors);
        for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
            spec.get(name).immutable(&before.get(name), errors);
        }
    }

    fn warnings(&self, object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
        let spec = object.get("spec");
        let many = |name| spec.get(name).int().unwrap_or(0);
        if spec.get("completionMode").str() == "Indexed"
            && many("completions") > 100_000
            && many("parallelism") > 10_000
        {
            warnings.push("spec.completions: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail".to_owned());
        }
        if old.is_none() {
            pod::template_warnings(&spec.get("template"), warnings);
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("status.successful", "/status/succeeded")]
    }

    fn pod_template_paths(&self) -> &'static [&'static str] {
        &["/spec/template"]
    }
}

fn labels_from_template(object: &mut Value) {
    let template = object.pointer("/spec/template/metadata/labels").filter(|labels| labels.is_object()).cloned();
    if let Some(labels) = template {
        edit::default(edit::child(object, "metadata"), "labels", labels);
    }
}

/// The job's pods are told from others by its UID.
fn generate_selector(object: &mut Value) {
    let uid = edit::text(&object["metadata"], "uid").to_owned();
    let name = edit::text(&object["metadata"], "name").to_owned();
    let spec = edit::child(object, "spec");
    let template = edit::child(spec, "template");
    for (key, value) in
        [(LEGACY_JOB_NAME, &name), (JOB_NAME, &name), (LEGACY_CONTROLLER_UID, &uid), (CONTROLLER_UID, &uid)]
    {
        if template.pointer("/metadata/labels").and_then(|labels| labels.get(key)).is_none() {
            edit::label(template, key, value);
        }
    }
    let mut selector = json!({"matchLabels": {}});
    if let Some(given) = spec.get("selector").filter(|selector| selector.is_object()) {
        selector = given.clone();
    }
    edit::default(edit::child(&mut selector, "matchLabels"), CONTROLLER_UID, uid);
    edit::set(spec, "selector", selector);
}

fn generated_selector(object: &Field<'_>, errors: &mut Errors) {
    let (meta, spec) = (object.get("metadata"), object.get("spec"));
    let own = spec.get("template").get("metadata").get("labels");
    for (key, wanted) in [
        (LEGACY_CONTROLLER_UID, meta.get("uid")),
        (LEGACY_JOB_NAME, meta.get("name")),
        (CONTROLLER_UID, meta.get("uid")),
        (JOB_NAME, meta.get("name")),
    ] {
        let label = own.key(key);
        if !label.is_set() {
            errors.push(own.key(key).required(format!("must be '{}'", wanted.str())));
        } else if label.str() != wanted.str() {
            errors.push(label.invalid(format!("must be '{}'", wanted.str())));
        }
    }
    let selector = spec.get("selector").get("matchLabels");
    if ![CONTROLLER_UID, LEGACY_CONTROLLER_UID].iter().any(|key| selector.key(key).str() == meta.get("uid").str()) {
        errors.push(spec.get("selector").invalid("`selector` not auto-generated"));
    }
}

/// While a job is suspended before it started, its template's scheduling may still change.
fn template_update(spec: &Field<'_>, before: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let mut munged = before.get("template").value().clone();
    let suspended = old.get("spec").get("suspend").bool() && !old.get("status").get("startTime").is_set();
    if suspended {
        let wanted = spec.get("template");
        for name in ["labels", "annotations"] {
            edit::keep(edit::child(&mut munged, "metadata"), wanted.get("metadata").value(), name);
        }
        for name in ["nodeSelector", "tolerations", "schedulingGates", "affinity"] {
            edit::keep(edit::child(&mut munged, "spec"), wanted.get("spec").value(), name);
        }
    }
    let munged = before.with(&munged);
    spec.get("template").immutable(&spec.get("template").with(munged.value()), errors);
}

fn validate_job_spec(spec: &Field<'_>, errors: &mut Errors) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(name).non_negative(errors);
    }
    let mode = spec.get("completionMode");
    if mode.is_set() && !["Indexed", "NonIndexed"].contains(&mode.str()) {
        errors.push(mode.not_supported(&["Indexed", "NonIndexed"]));
    }
    if mode.str() == "Indexed" && !spec.get("completions").is_set() {
        errors.push(spec.get("completions").required("when completion mode is Indexed"));
    }
    if mode.str() != "Indexed" {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            if spec.get(name).is_set() {
                let wanted =
                    if name == "maxFailedIndexes" { "backoffLimitPerIndex" } else { "completionMode: Indexed" };
                errors.push(spec.get(name).invalid(format!("requires {wanted}")));
            }
        }
    }
    failure_policy(spec, errors);
    let replacement = spec.get("podReplacementPolicy");
    if replacement.is_set() && !["Failed", "TerminatingOrFailed"].contains(&replacement.str()) {
        errors.push(replacement.not_supported(&["Failed", "TerminatingOrFailed"]));
    }
    if spec.get("podFailurePolicy").is_set() && replacement.str() == "TerminatingOrFailed" {
        errors.push(replacement.not_supported(&["Failed"]));
    }
    let template = spec.get("template");
    pod::validate_pod_template(&template, errors);
    ending_restart_policy(&template, errors);
    let policy = template.get("spec").get("restartPolicy");
    if spec.get("podFailurePolicy").is_set() && policy.str() != "Never" {
        errors.push(policy.invalid("only \"Never\" is supported when podFailurePolicy is specified"));
    }
}

fn ending_restart_policy(template: &Field<'_>, errors: &mut Errors) {
    let policy = template.get("spec").get("restartPolicy");
    match policy.str() {
        "OnFailure" | "Never" => {}
        "" | "Always" => errors.push(policy.required("valid values: \"OnFailure\", \"Never\"")),
        _ => errors.push(policy.not_supported(&["OnFailure", "Never"])),
    }
}

fn failure_policy(spec: &Field<'_>, errors: &mut Errors) {
    let rules = spec.get("podFailurePolicy").get("rules");
    if rules.len() > FAILURE_RULES_MAX {
        errors.push(rules.too_many(FAILURE_RULES_MAX));
    }
    for rule in rules.items() {
        rule.get("action").one_of(&["Count", "FailIndex", "FailJob", "Ignore"], errors);
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        match (codes.set(), conditions.is_empty()) {
            (Some(_), false) => {
                errors.push(rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"))
            }
            (None, true) => errors.push(rule.invalid("specifying one of OnExitCodes and OnPodConditions is required")),
            (Some(codes), true) => exit_codes(&codes, errors),
            (None, false) => {}
        }
        for pattern in conditions.items() {
            let kind = pattern.get("type");
            kind.check(names::qualified_name(kind.str()), errors);
            pattern.get("status").one_of(&["False", "True", "Unknown"], errors);
        }
    }
}

fn exit_codes(codes: &Field<'_>, errors: &mut Errors) {
    let (operator, values) = (codes.get("operator"), codes.get("values"));
    operator.one_of(&["In", "NotIn"], errors);
    if values.is_empty() {
        errors.push(values.invalid_as(json!([]), "at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        errors.push(values.too_many(EXIT_CODES_MAX));
    }
    let mut last = None;
    for value in values.items() {
        if operator.str() == "In" && value.int() == Some(0) {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        match (last, value.int()) {
            (Some(before), Some(code)) if code == before => errors.push(value.duplicate()),
            (Some(before), Some(code)) if code < before => errors.push(values.invalid("must be ordered")),
            _ => {}
        }
        last = value.int();
    }
}

/// `batch/v1` CronJob.
pub struct CronJob;

impl Behavior for CronJob {
    fn set_defaults(&self, object: &mut Value) {
        let spec = edit::child(object, "spec");
        edit::default_text(spec, "concurrencyPolicy", "Allow");
        edit::default(spec, "suspend", false);
        edit::default(spec, "successfulJobsHistoryLimit", 3);
        edit::default(spec, "failedJobsHistoryLimit", 1);
        let job = edit::child(edit::child(spec, "jobTemplate"), "spec");
        if let Some(template) = edit::member(job, "template") {
            pod::set_pod_template_defaults(template);
        }
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        let spec = object.get("spec");
        let schedule = spec.get("schedule");
        if schedule.is_empty() {
            errors.push(schedule.required(""));
        } else if schedule.str().contains("TZ") {
            errors.push(schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
        } else if let Err(error) = cron::Schedule::parse(schedule.str()) {
            errors.push(schedule.invalid(error.to_string()));
        }
        spec.get("startingDeadlineSeconds").non_negative(errors);
        time_zone(&spec.get("timeZone"), errors);
        spec.get("concurrencyPolicy").one_of(&["Allow", "Forbid", "Replace"], errors);
        job_template(&spec.get("jobTemplate"), errors);
        spec.get("successfulJobsHistoryLimit").non_negative(errors);
        spec.get("failedJobsHistoryLimit").non_negative(errors);
        let name = object.get("metadata").get("name");
        if name.len() > CRON_JOB_NAME_MAX {
            errors.push(name.invalid("must be no more than 52 characters"));
        }
    }

    fn warnings(&self, object: &Field<'_>, old: Option<&Value>, warnings: &mut Vec<String>) {
        let template = object.get("spec").get("jobTemplate").get("spec").get("template");
        if old.is_none_or(|old| old.pointer("/spec/jobTemplate/spec/template") != Some(template.value())) {
            pod::template_warnings(&template, warnings);
        }
        let name = object.get("metadata").get("name").str();
        if old.is_none() && !names::dns1123_label(name).is_empty() && names::dns1123_subdomain(name).is_empty() {
            let complaints = names::dns1123_label(name);
            warnings.push(format!("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]", complaints.join(" ")));
        }
    }

    fn pod_template_paths(&self) -> &'static [&'static str] {
        &["/spec/jobTemplate/spec/template"]
    }
}

fn time_zone(zone: &Field<'_>, errors: &mut Errors) {
    if !zone.is_set() {
        return;
    }
    let name = zone.str();
    if name.is_empty() {
        errors.push(zone.invalid("timeZone must be nil or non-empty string"));
    } else if name.eq_ignore_ascii_case("local") {
        errors
            .push(zone.invalid("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"));
    } else if !name.eq_ignore_ascii_case("utc") && jiff::tz::TimeZone::get(name).is_err() {
        errors.push(zone.invalid(format!("unknown time zone {name}")));
    }
}

fn job_template(template: &Field<'_>, errors: &mut Errors) {
    let spec = template.get("spec");
    if spec.get("manualSelector").bool() {
        errors.push(spec.get("manualSelector").not_supported(&["nil", "false"]));
    }
    if spec.get("selector").is_set() {
        errors.push(spec.get("selector").invalid("`selector` will be auto-generated"));
    }
    validate_job_spec(&spec, errors);
}
