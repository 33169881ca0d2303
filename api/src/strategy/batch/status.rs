//! The status of a Job: what may be written of it, and what may follow on what.
//!
//! Somebody else than the Job controller may run a job (`spec.managedBy`), so the API checks that a status makes sense.
//! A rule is asked only where one of its fields changes: what a change of the spec has put out of step does not hinder
//! the status from catching up. `pkg/apis/batch/validation/validation.go` `validateJobStatus`,
//! `pkg/registry/batch/job/strategy.go` `getStatusValidationOptions`.
use std::collections::BTreeSet;

use serde_json::Value;

use super::super::field::{Errors, Field};
use super::indexes;
use crate::status::FieldError;

/// A job before or after a write of its status.
struct Job<'a> {
    spec: Field<'a>,
    status: Field<'a>,
}

impl<'a> Job<'a> {
    fn of(object: &Field<'a>) -> Job<'a> {
        Job { spec: object.get("spec"), status: object.get("status") }
    }

    fn has(&self, condition: &str, value: &str) -> bool {
        let mut conditions = self.status.get("conditions").items();
        conditions.any(|one| one.get("type").str() == condition && one.get("status").str() == value)
    }

    fn is(&self, condition: &str) -> bool {
        self.has(condition, "True")
    }

    fn is_finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    /// A counter, zero where it is left out.
    fn count(&self, name: &'static str) -> i64 {
        self.status.get(name).int().unwrap_or(0)
    }

    /// A field of the status as it is compared: what is left out and what is zero or empty are the same, where Kubernetes
    /// has no pointer.
    fn plain(&self, name: &'static str) -> &'a Value {
        let value = self.status.get(name).value();
        let zero = value.as_i64() == Some(0) || value.as_str() == Some("");
        if zero { &Value::Null } else { value }
    }

    fn uncounted(&self, outcome: &'static str) -> Field<'a> {
        self.status.get("uncountedTerminatedPods").get(outcome)
    }

    /// An error about the conditions, which are not shown.
    fn conditions(&self, detail: impl Into<String>) -> FieldError {
        self.status.get("conditions").invalid_omitted(detail)
    }
}

/// What of a job changes with a write of its status.
struct Changes<'a> {
    new: &'a Job<'a>,
    old: &'a Job<'a>,
}

impl Changes<'_> {
    fn condition(&self, name: &str) -> bool {
        self.new.is(name) != self.old.is(name)
    }

    fn finished(&self) -> bool {
        self.new.is_finished() != self.old.is_finished()
    }

    /// A field that Kubernetes has a pointer to.
    fn pointer(&self, name: &'static str) -> bool {
        self.new.status.get(name).value() != self.old.status.get(name).value()
    }

    fn plain(&self, name: &'static str) -> bool {
        self.new.plain(name) != self.old.plain(name)
    }

    fn uncounted(&self) -> bool {
        let pods = |job: &Job<'_>| -> Vec<Vec<String>> {
            let of = |outcome| job.uncounted(outcome).items().map(|uid| uid.str().to_owned()).collect();
            vec![of("succeeded"), of("failed")]
        };
        let given = |job: &Job<'_>| job.status.get("uncountedTerminatedPods").is_set();
        given(self.new) != given(self.old) || pods(self.new) != pods(self.old)
    }
}

/// What is wrong with a job's status, given what it was.
pub fn validate(object: &Field<'_>, before: &Field<'_>, errors: &mut Errors) {
    let (new, old) = (Job::of(object), Job::of(before));
    let changes = Changes { new: &new, old: &old };
    counters(&new, errors);
    uncounted_pods(&new, errors);
    outcome(&changes, errors);
    times(&changes, errors);
    reasons(&changes, errors);
    leftovers(&changes, errors);
    index_lists(&changes, errors);
    pods_at_hand(&changes, errors);
    success_criteria(&new, errors);
    transitions(&changes, errors);
}

fn counters(job: &Job<'_>, errors: &mut Errors) {
    for name in ["active", "succeeded", "failed", "ready", "terminating"] {
        job.status.get(name).non_negative(errors);
    }
}

fn uncounted_pods(job: &Job<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for uid in ["succeeded", "failed"].into_iter().flat_map(|outcome| job.uncounted(outcome).items()) {
        if uid.is_empty() {
            errors.push(uid.invalid("must not be empty"));
        } else if !seen.insert(uid.str()) {
            errors.push(uid.duplicate());
        }
    }
}

/// A job comes to one end, not two.
fn outcome(changes: &Changes<'_>, errors: &mut Errors) {
    let job = changes.new;
    let complete = changes.condition("Complete");
    if (complete || changes.condition("Failed")) && job.is("Complete") && job.is("Failed") {
        errors.push(job.conditions("cannot set Complete=True and Failed=true conditions"));
    }
    if (complete || changes.condition("FailureTarget")) && job.is("Complete") && job.is("FailureTarget") {
        errors.push(job.conditions("cannot set Complete=True and FailureTarget=true conditions"));
    }
}

fn times(changes: &Changes<'_>, errors: &mut Errors) {
    let job = changes.new;
    let (start, end) = (job.status.get("startTime"), job.status.get("completionTime"));
    if changes.condition("Complete") || changes.pointer("completionTime") {
        if end.is_set() && !job.is("Complete") {
            errors.push(end.invalid("cannot set completionTime when there is no Complete=True condition"));
        }
        if !end.is_set() && job.is("Complete") {
            errors.push(end.required("completionTime is required for Complete jobs"));
        }
    }
    let moment = |field: &Field<'_>| field.str().parse::<jiff::Timestamp>().ok();
    let backwards = moment(&start).zip(moment(&end)).is_some_and(|(start, end)| end < start);
    if (changes.pointer("startTime") || changes.pointer("completionTime")) && backwards {
        errors.push(end.invalid("must be equal to or after `startTime`"));
    }
}

/// What ends a job is said before it ends, while its pods are still ending.
fn reasons(changes: &Changes<'_>, errors: &mut Errors) {
    let job = changes.new;
    if (changes.condition("Failed") || changes.pointer("failedIndexes")) && job.is("Failed") && !job.is("FailureTarget")
    {
        errors.push(job.conditions("cannot set Failed=True condition without the FailureTarget=true condition"));
    }
    if (changes.condition("Complete") || changes.condition("SuccessCriteriaMet"))
        && job.is("Complete")
        && !job.is("SuccessCriteriaMet")
    {
        errors.push(job.conditions("cannot set Complete=True condition without the SuccessCriteriaMet=true condition"));
    }
}

/// A finished job has started, and has nothing left to do.
fn leftovers(changes: &Changes<'_>, errors: &mut Errors) {
    let job = changes.new;
    let finished = job.is_finished();
    let active = job.status.get("active");
    if (changes.finished() || changes.plain("active")) && job.count("active") > 0 && finished {
        errors.push(active.invalid("active>0 is invalid for finished job"));
    }
    let start = job.status.get("startTime");
    let never_to_run = job.spec.get("suspend").bool() && job.spec.get("completions").int() == Some(0);
    if (changes.finished() || changes.pointer("startTime")) && !never_to_run && !start.is_set() && finished {
        errors.push(start.required("startTime is required for finished job"));
    }
    let uncounted = job.status.get("uncountedTerminatedPods");
    let any = !job.uncounted("succeeded").is_empty() || !job.uncounted("failed").is_empty();
    if (changes.finished() || changes.uncounted()) && finished && any {
        let null = || Value::Null;
        let shown = uncounted.internal(&[("Succeeded", "succeeded", null()), ("Failed", "failed", null())]);
        errors.push(uncounted.invalid("must be empty for finished job").showing(shown));
    }
}

fn index_lists(changes: &Changes<'_>, errors: &mut Errors) {
    let job = changes.new;
    let (done, failed) = (job.status.get("completedIndexes"), job.status.get("failedIndexes"));
    let (done_changed, failed_changed) = (changes.plain("completedIndexes"), changes.pointer("failedIndexes"));
    let completions = job.spec.get("completions").int();
    let limit_per_index = job.spec.get("backoffLimitPerIndex").is_set();
    if let Some(completions) = completions {
        let readable = |list: &Field<'_>, name: &str, errors: &mut Errors| {
            if let Err(why) = indexes::count(list.str(), completions) {
                errors.push(list.invalid(format!("error parsing {name}: {why}")));
            }
        };
        if done_changed {
            readable(&done, "completedIndexes", errors);
        }
        if failed_changed && limit_per_index && failed.is_set() {
            readable(&failed, "failedIndexes", errors);
        }
    }
    if done_changed && !done.is_empty() && job.spec.get("completionMode").str() != "Indexed" {
        errors.push(done.invalid("cannot set non-empty completedIndexes when non-indexed completion mode"));
    }
    if failed_changed && !limit_per_index && failed.is_set() {
        errors.push(failed.invalid("cannot set non-null failedIndexes when backoffLimitPerIndex is null"));
    }
    if (failed_changed || done_changed)
        && let Some(completions) = completions
        && let Some(index) = indexes::overlap(done.str(), failed.str(), completions)
    {
        errors.push(failed.invalid(format!("failedIndexes and completedIndexes overlap at index: {index}")));
    }
}

fn pods_at_hand(changes: &Changes<'_>, errors: &mut Errors) {
    let job = changes.new;
    let (terminating, ready) = (job.status.get("terminating"), job.status.get("ready"));
    if (changes.finished() || changes.pointer("terminating")) && job.count("terminating") > 0 && job.is_finished() {
        errors.push(terminating.invalid("terminating>0 is invalid for finished job"));
    }
    if (changes.pointer("ready") || changes.plain("active")) && job.count("ready") > job.count("active") {
        errors.push(ready.invalid("cannot set more ready pods than active"));
    }
}

fn success_criteria(job: &Job<'_>, errors: &mut Errors) {
    let met = job.is("SuccessCriteriaMet");
    if met && job.is("Failed") {
        errors.push(job.conditions("cannot set SuccessCriteriaMet=True and Failed=true conditions"));
    }
    if met && job.is("FailureTarget") {
        errors.push(job.conditions("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"));
    }
    if job.spec.get("successPolicy").is_set() && !met && job.is("Complete") {
        errors
            .push(job.conditions("cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True"));
    }
}

/// What is reached is not taken back.
fn transitions(changes: &Changes<'_>, errors: &mut Errors) {
    let (new, old) = (changes.new, changes.old);
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if old.is(condition) && !new.is(condition) {
            errors.push(new.conditions(format!("cannot disable the terminal {condition}=True condition")));
        }
    }
    let status = &new.status;
    let shrunk = |name| new.count(name) < old.count(name);
    let counter = |name: &'static str| {
        status.get(name).invalid_as(new.count(name), format!("cannot decrease the {name} counter"))
    };
    if shrunk("failed") {
        errors.push(counter("failed"));
    }
    // A job that counts its pods may be made smaller.
    let number = |name| new.spec.get(name).int();
    let elastic = new.spec.get("completionMode").str() == "Indexed" && number("completions") == number("parallelism");
    if !elastic && shrunk("succeeded") {
        errors.push(counter("succeeded"));
    }
    let (end, was_end) = (status.get("completionTime"), old.status.get("completionTime"));
    if end.is_set() && was_end.is_set() {
        end.immutable(&was_end, errors);
    }
    let (start, was_start) = (status.get("startTime"), old.status.get("startTime"));
    let resumes = old.is("Suspended") && new.has("Suspended", "False");
    if was_start.is_set() && changes.pointer("startTime") && !resumes && !new.spec.get("suspend").bool() {
        errors.push(start.invalid_as(start.value().clone(), "field is immutable for unsuspended job once set"));
    }
    let met = "SuccessCriteriaMet";
    if old.is(met) && !new.is(met) {
        errors.push(new.conditions("cannot disable the SuccessCriteriaMet=True condition"));
    }
    if old.is("Complete") && !old.is(met) && new.is(met) {
        errors.push(new.conditions("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"));
    }
}
