//! Jobs and CronJobs. Mirrors `pkg/apis/batch/{v1/defaults.go,validation/validation.go}` and `pkg/registry/batch`.
pub mod cron;
mod indexes;
mod status;

use serde_json::{Value, json};
use std::collections::BTreeSet;

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
const FAILURE_CONDITIONS_MAX: usize = 20;
const MANAGER_MAX: usize = 63;
const INDEXES_MAX_BYTES: usize = 64 * 1024;
const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// Completions above which a job with a limit per index has narrower bounds.
const COMPLETIONS_MANY: i64 = 100_000;
const PARALLELISM_OF_MANY_MAX: i64 = 10_000;
const FAILED_INDEXES_OF_MANY_MAX: i64 = 10_000;

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
        edit::default(spec, "manualSelector", false);
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
        // Scheduling of a job's pods as one group is an alpha feature.
        edit::take(edit::child(object, "spec"), "scheduling");
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
        selects_its_pods(&spec, errors);
    }

    fn validate_update(&self, subresource: Subresource, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        if subresource == Subresource::Status {
            return status::validate(new, old, errors);
        }
        let (spec, before) = (new.get("spec"), old.get("spec"));
        validate_job_spec(&spec, errors);
        selects_its_pods(&spec, errors);
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

/// The selector must match the pods that the template makes, whoever wrote it.
fn selects_its_pods(spec: &Field<'_>, errors: &mut Errors) {
    let selector = spec.get("selector");
    let own = spec.get("template").get("metadata").get("labels");
    if selector.is_set() {
        labels::validate_selector(&selector, errors);
    } else {
        errors.push(selector.required(""));
    }
    if labels::is_readable(selector.value()) && !labels::matches(selector.value(), own.value()) {
        errors.push(own.invalid_as(own.value().clone(), "`selector` does not match template `labels`"));
    }
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
    if spec.get("maxFailedIndexes").is_set() && !spec.get("backoffLimitPerIndex").is_set() {
        errors.push(spec.get("backoffLimitPerIndex").required("when maxFailedIndexes is specified"));
    }
    let manager = spec.get("managedBy");
    if manager.is_set() {
        manager.check(names::domain_prefixed_path(manager.str()), errors);
        if manager.len() > MANAGER_MAX {
            errors.push(manager.too_long(MANAGER_MAX));
        }
    }
    let mode = spec.get("completionMode");
    if mode.is_set() && !["Indexed", "NonIndexed"].contains(&mode.str()) {
        errors.push(mode.not_supported(&["NonIndexed", "Indexed"]));
    }
    if mode.str() == "Indexed" {
        indexed(spec, errors);
    }
    if matches!(mode.str(), "" | "NonIndexed") && !(mode.is_set() && mode.is_empty()) {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"].map(|name| spec.get(name)) {
            if field.is_set() {
                errors.push(field.invalid("requires indexed completion mode"));
            }
        }
    }
    failure_policy(spec, errors);
    if let Some(policy) = spec.get("successPolicy").set() {
        success_policy(spec, &policy, errors);
    }
    let replacement = spec.get("podReplacementPolicy");
    let known: &[&str] =
        if spec.get("podFailurePolicy").is_set() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    if replacement.is_set() && !known.contains(&replacement.str()) {
        errors.push(replacement.not_supported(known));
    }
    let template = spec.get("template");
    pod::validate_pod_template(&template, errors);
    ending_restart_policy(&template, errors);
    let policy = template.get("spec").get("restartPolicy");
    if spec.get("podFailurePolicy").is_set() && policy.str() == "OnFailure" {
        errors.push(policy.invalid("only \"Never\" is supported when podFailurePolicy is specified"));
    }
}

/// Bounds of jobs that count their pods, so that what they remember stays small.
fn indexed(spec: &Field<'_>, errors: &mut Errors) {
    let number = |name| spec.get(name).int();
    let (completions, parallelism, failed) = (number("completions"), number("parallelism"), number("maxFailedIndexes"));
    if completions.is_none() {
        errors.push(spec.get("completions").required("when completion mode is Indexed"));
    }
    if parallelism.is_some_and(|many| many > PARALLELISM_MAX) {
        let detail = format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
        errors.push(spec.get("parallelism").invalid(detail));
    }
    if failed.zip(completions).is_some_and(|(failed, completions)| failed > completions) {
        errors.push(spec.get("maxFailedIndexes").invalid("must be less than or equal to completions"));
    }
    if failed.is_some_and(|many| many > FAILED_INDEXES_MAX) {
        errors
            .push(spec.get("maxFailedIndexes").invalid(format!("must be less than or equal to {FAILED_INDEXES_MAX}")));
    }
    if completions.is_none_or(|many| many <= COMPLETIONS_MANY) || !spec.get("backoffLimitPerIndex").is_set() {
        return;
    }
    if failed.is_none() {
        let detail = format!("must be specified when completions is above {COMPLETIONS_MANY}");
        errors.push(spec.get("maxFailedIndexes").required(detail));
    }
    for (name, most) in [("parallelism", PARALLELISM_OF_MANY_MAX), ("maxFailedIndexes", FAILED_INDEXES_OF_MANY_MAX)] {
        if number(name).is_some_and(|many| many > most) {
            errors.push(spec.get(name).invalid(format!(
                "must be less than or equal to {most} when completions are above {COMPLETIONS_MANY} and used with backoff limit per index"
            )));
        }
    }
}

fn success_policy(spec: &Field<'_>, policy: &Field<'_>, errors: &mut Errors) {
    let rules = policy.get("rules");
    if spec.get("completionMode").str() != "Indexed" {
        let shown: Vec<String> = rules
            .items()
            .map(|rule| {
                rule.internal(&[
                    ("SucceededIndexes", "succeededIndexes", Value::Null),
                    ("SucceededCount", "succeededCount", Value::Null),
                ])
            })
            .collect();
        let shown = if rules.is_set() { format!("[{}]", shown.join(",")) } else { "null".to_owned() };
        let shown = format!("{{\"Rules\":{shown}}}");
        errors.push(policy.invalid("requires indexed completion mode").showing(shown));
        return;
    }
    if rules.is_empty() {
        errors.push(rules.required("at least one rules must be specified when the successPolicy is specified"));
    }
    if rules.len() > FAILURE_RULES_MAX {
        errors.push(rules.too_many(FAILURE_RULES_MAX));
    }
    let completions = spec.get("completions").int().unwrap_or(0);
    for rule in rules.items() {
        let (listed, count) = (rule.get("succeededIndexes"), rule.get("succeededCount"));
        if !listed.is_set() && !count.is_set() {
            errors.push(rule.required("at least one of succeededCount or succeededIndexes must be specified"));
        }
        if listed.len() > INDEXES_MAX_BYTES {
            errors.push(listed.too_long(INDEXES_MAX_BYTES));
        }
        let total = match indexes::count(listed.str(), completions) {
            Ok(total) => total,
            Err(why) => {
                errors.push(listed.invalid(format!("error parsing succeededIndexes: {why}")));
                0
            }
        };
        let Some(wanted) = count.int() else {
            continue;
        };
        count.non_negative(errors);
        if wanted > completions {
            errors.push(
                count.invalid(format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                )),
            );
        }
        if listed.is_set() && wanted > total {
            errors.push(count.invalid(format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            )));
        }
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
        let action = rule.get("action");
        match action.str() {
            "FailIndex" if !spec.get("backoffLimitPerIndex").is_set() => {
                errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
            }
            _ => one_of_listed(&action, &["Count", "FailIndex", "FailJob", "Ignore"], errors),
        }
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        if codes.is_set() {
            exit_codes(&codes, &spec.get("template").get("spec"), errors);
        }
        if conditions.len() > FAILURE_CONDITIONS_MAX {
            errors.push(conditions.too_many(FAILURE_CONDITIONS_MAX));
        }
        for pattern in conditions.items() {
            let kind = pattern.get("type");
            kind.check(names::qualified_name(kind.str()), errors);
            one_of_listed(&pattern.get("status"), &["False", "True", "Unknown"], errors);
        }
        match (codes.is_set(), conditions.is_empty()) {
            (true, false) => {
                errors.push(rule.invalid_omitted("specifying both OnExitCodes and OnPodConditions is not supported"))
            }
            (false, true) => {
                errors.push(rule.invalid_omitted("specifying one of OnExitCodes and OnPodConditions is required"))
            }
            _ => {}
        }
    }
}

/// As [`Field::one_of`], naming the values where there is none.
fn one_of_listed(field: &Field<'_>, supported: &[&str], errors: &mut Errors) {
    if field.is_empty() {
        let quoted: Vec<String> = supported.iter().map(|name| format!("{name:?}")).collect();
        errors.push(field.required(format!("valid values: [{}]", quoted.join(" "))));
    } else {
        field.one_of(supported, errors);
    }
}

fn exit_codes(codes: &Field<'_>, template: &Field<'_>, errors: &mut Errors) {
    let (operator, values, container) = (codes.get("operator"), codes.get("values"), codes.get("containerName"));
    one_of_listed(&operator, &["In", "NotIn"], errors);
    let mut containers = ["containers", "initContainers"].into_iter().flat_map(|list| template.get(list).items());
    if container.is_set() && !containers.any(|other| other.get("name").str() == container.str()) {
        errors.push(container.invalid("must be one of the container or initContainer names in the pod template"));
    }
    if values.is_empty() {
        errors.push(values.invalid_as(values.value().clone(), "at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        errors.push(values.too_many(EXIT_CODES_MAX));
    }
    let numbers: Vec<i64> = values.items().map(|value| value.int().unwrap_or(0)).collect();
    let mut seen = BTreeSet::new();
    for (value, number) in values.items().zip(&numbers) {
        if operator.str() == "In" && *number == 0 {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if !seen.insert(number) {
            errors.push(value.duplicate());
        }
    }
    if !numbers.is_sorted() {
        errors.push(values.invalid("must be ordered"));
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
