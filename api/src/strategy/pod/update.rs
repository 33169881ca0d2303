//! What may change in a pod that exists: through the pod itself, its ephemeral containers, its sizes.
//! Mirrors `ValidatePodUpdate`, `ValidatePodEphemeralContainersUpdate` and `ValidatePodResize`.
use serde_json::Value;

use super::scheduling;
use crate::strategy::difference::difference;
use crate::strategy::edit;
use crate::strategy::field::{Errors, Field};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 \
if it was previously negative)";

/// The pod's own door: images, deadlines, tolerations added, gates removed.
pub fn validate(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let [mirrors, mirrored] = [new, old].map(|pod| pod.get("metadata").get("annotations").key(super::MIRROR));
    if mirrored.is_set() && mirrors.value() != mirrored.value() {
        errors.push(mirrors.forbidden("may not remove or update mirror pod annotation"));
    } else if mirrors.is_set() && !mirrored.is_set() {
        errors.push(mirrors.forbidden("may not add mirror pod annotation"));
    }
    for list in ["containers", "initContainers"] {
        let (containers, earlier) = (spec.get(list), before.get(list));
        if containers.len() != earlier.len() {
            errors.push(containers.forbidden("pod updates may not add or remove containers"));
            return;
        }
        for container in containers.items() {
            let image = container.get("image");
            if image.is_empty() {
                errors.push(image.required(""));
            }
        }
    }
    deadline(&spec, &before, errors);
    let gated = !before.get("schedulingGates").is_empty();
    only_gates_removed(&spec, &before, errors);
    only_tolerations_added(&spec, &before, errors);
    let munged = munge(spec.value(), before.value(), gated);
    if gated {
        node_constraints_tightened(&spec, &before, errors);
    }
    if munged != *before.value() {
        let difference = difference(&munged, before.value());
        errors.push(spec.forbidden(format!("pod updates may not change fields other than {UPDATABLE}\n{difference}")));
    }
}

/// The new spec with all that may change set back to what it was.
fn munge(new: &Value, old: &Value, gated: bool) -> Value {
    let mut spec = new.clone();
    for list in ["containers", "initContainers"] {
        let earlier = old[list].as_array().cloned().unwrap_or_default();
        for (container, before) in edit::each(&mut spec, list).zip(&earlier) {
            edit::keep(container, before, "image");
        }
    }
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        edit::keep(&mut spec, old, name);
    }
    if old["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0)
        && new["terminationGracePeriodSeconds"].as_i64() == Some(1)
    {
        edit::keep(&mut spec, old, "terminationGracePeriodSeconds");
    }
    if gated {
        for name in ["nodeSelector", "affinity"] {
            edit::keep(&mut spec, old, name);
        }
    }
    spec
}

fn deadline(spec: &Field<'_>, before: &Field<'_>, errors: &mut Errors) {
    let (new, old) = (spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds"));
    match (new.int(), old.int()) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            errors.push(new.invalid(crate::strategy::names::out_of_range(0, i64::from(i32::MAX))));
        }
        (Some(seconds), Some(earlier)) if seconds > earlier => {
            errors.push(new.invalid("must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            errors.push(new.invalid_as(Value::Null, "must not update from a positive integer to nil value"))
        }
        _ => {}
    }
}

fn only_gates_removed(spec: &Field<'_>, before: &Field<'_>, errors: &mut Errors) {
    let gates = spec.get("schedulingGates");
    let known: Vec<&str> = before.get("schedulingGates").items().map(|gate| gate.get("name").str()).collect();
    let added: Vec<&str> =
        gates.items().map(|gate| gate.get("name").str()).filter(|name| !known.contains(name)).collect();
    for name in added {
        errors.push(gates.forbidden(format!("only deletion is allowed, but found new scheduling gate '{name}'")));
    }
}

fn only_tolerations_added(spec: &Field<'_>, before: &Field<'_>, errors: &mut Errors) {
    let tolerations = spec.get("tolerations");
    let list = tolerations.value().as_array().map_or(&[][..], Vec::as_slice);
    let same = |a: &Value, b: &Value| {
        let without_seconds = |value: &Value| {
            let mut value = value.clone();
            edit::take(&mut value, "tolerationSeconds");
            value
        };
        without_seconds(a) == without_seconds(b)
    };
    let kept = before.get("tolerations").items().all(|earlier| list.iter().any(|new| same(new, earlier.value())));
    if !kept {
        errors.push(tolerations.forbidden("existing toleration can not be modified except its tolerationSeconds"));
    }
    scheduling::validate_tolerations(&tolerations, errors);
}

/// While gates hold a pod back, its node constraints may be narrowed, never widened.
fn node_constraints_tightened(spec: &Field<'_>, before: &Field<'_>, errors: &mut Errors) {
    let selector = spec.get("nodeSelector");
    let widened = before.get("nodeSelector").entries().any(|(key, value)| selector.key(key).value() != value.value());
    if widened {
        errors.push(selector.invalid("only additions to spec.nodeSelector are allowed (no mutations or deletions)"));
    }
    scheduling::validate_node_labels(&selector, errors);
    scheduling::validate_affinity(&spec.get("affinity"), errors);
}

/// `pods/ephemeralcontainers`: existing ones stay as they are.
pub fn validate_ephemeral(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let containers = new.get("spec").get("ephemeralContainers");
    for earlier in old.get("spec").get("ephemeralContainers").items() {
        let name = earlier.get("name").str();
        match containers.items().find(|container| container.get("name").str() == name) {
            None => errors
                .push(containers.forbidden(format!("existing ephemeral containers {name:?} may not be removed\n"))),
            Some(container) if container.value() != earlier.value() => {
                errors
                    .push(containers.forbidden(format!("existing ephemeral containers {name:?} may not be changed\n")));
            }
            Some(_) => {}
        }
    }
}

/// `pods/resize`: only requests and limits of processors and memory, and none goes away.
pub fn validate_resize(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let whole = Field::at("", new.value());
    if old.get("metadata").get("annotations").key(super::MIRROR).is_set() {
        *errors = Errors::new();
        return errors.push(whole.forbidden("static pods cannot be resized"));
    }
    if before.get("os").get("name").str() == "windows" {
        *errors = Errors::new();
        return errors.push(whole.forbidden("windows pods cannot be resized"));
    }
    let class = super::resources::qos_class(old.value());
    if super::resources::qos_class(new.value()) != class {
        errors.push(spec.invalid_as(class, "Pod QOS Class may not change as a result of resizing"));
    }
    if !can_be_resized(&old.get("status")) {
        errors.push(spec.forbidden("Pod running on node without support for resize"));
    }
    let mut munged = spec.value().clone();
    keeps_whole(&spec, &before, &mut munged, errors);
    let before_order = errors.len();
    for list in ["containers", "initContainers"] {
        same_containers(list, &spec.get(list), &before.get(list), errors);
    }
    if errors.len() > before_order {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (container, earlier) in spec.get(list).items().zip(before.get(list).items()) {
            keeps_resources(&container.get("resources"), &earlier.get("resources"), errors);
        }
    }
    for (list, sentence) in [
        ("containers", "only cpu and memory resources are mutable"),
        ("initContainers", "only cpu and memory resources for init or sidecar containers are mutable"),
    ] {
        let earlier = before.value()[list].as_array().cloned().unwrap_or_default();
        for (index, (container, before)) in edit::each(&mut munged, list).zip(&earlier).enumerate() {
            keep_cpu_and_memory(container, before);
            if container != before {
                let place = spec.get(list).items().nth(index).filter(|_| list == "initContainers");
                let place = place.unwrap_or_else(|| spec.clone());
                errors.push(place.forbidden(sentence));
                *container = before.clone();
            }
        }
    }
    for (container, before) in spec.get("initContainers").items().zip(before.get("initContainers").items()) {
        let is_changed = container.get("resources").value() != before.get("resources").value();
        let mut policies = container.get("resizePolicy").items().map(|policy| policy.get("restartPolicy"));
        if is_changed
            && container.get("restartPolicy").str() != "Always"
            && policies.any(|policy| policy.str() == "RestartContainer")
        {
            errors.push(
                container.forbidden(
                    "non-sidecar init containers with a resize policy of RestartContainer cannot be resized",
                ),
            );
        }
    }
    if errors.is_empty() && munged != *before.value() {
        errors.push(spec.forbidden("only cpu and memory resources are mutable"));
    }
}

/// Whether the pod's node tells what containers have (`isPodResizeRequestSupported`). Of one that runs none it is not known.
fn can_be_resized(status: &Field<'_>) -> bool {
    let mut running =
        status.get("containerStatuses").items().filter(|status| status.get("state").get("running").is_set());
    running.next().is_none_or(|status| status.get("resources").is_set())
}

/// What may change of the resources of the pod as a whole: processors and memory, and none goes away
/// (`validatePodLevelResourcesResize`). What may change is put back in `munged`.
fn keeps_whole(spec: &Field<'_>, before: &Field<'_>, munged: &mut Value, errors: &mut Errors) {
    let (new, old) = (spec.get("resources"), before.get("resources"));
    let gives = |whole: &Field<'_>| ["requests", "limits"].into_iter().any(|list| !whole.get(list).is_empty());
    if !gives(&new) && !gives(&old) {
        return;
    }
    if old.is_set() && !new.is_set() {
        return errors.push(new.forbidden("pod-level resources cannot be removed"));
    }
    for list in ["requests", "limits"] {
        if old.get(list).entries().any(|(name, _)| !new.get(list).key(name).is_set()) {
            errors.push(new.get(list).forbidden(format!("pod-level resource {list} cannot be removed")));
        }
    }
    keep_cpu_and_memory(munged, before.value());
    if !old.is_set() && munged["resources"].as_object().is_some_and(serde_json::Map::is_empty) {
        edit::take(munged, "resources");
    }
    if munged.get("resources") != before.value().get("resources") {
        errors.push(spec.forbidden("only cpu and memory resources are mutable at pod-level"));
        edit::keep(munged, before.value(), "resources");
    }
}

fn same_containers(list: &str, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    if new.len() != old.len() {
        return errors.push(new.forbidden(format!("{list} may not be added or removed on resize")));
    }
    for (container, earlier) in new.items().zip(old.items()) {
        let name = container.get("name");
        if name.str() != earlier.get("name").str() {
            errors.push(name.forbidden(format!("{list} may not be renamed or reordered on resize")));
        }
    }
}

fn keeps_resources(resources: &Field<'_>, earlier: &Field<'_>, errors: &mut Errors) {
    for list in ["requests", "limits"] {
        let (new, old) = (resources.get(list), earlier.get(list));
        if old.entries().any(|(name, _)| !new.key(name).is_set()) {
            errors.push(new.forbidden(format!("resource {list} cannot be removed")));
        }
    }
}

/// What may be resized, as it was.
fn keep_cpu_and_memory(container: &mut Value, before: &Value) {
    let mut resources = container.get("resources").cloned().unwrap_or(Value::Null);
    for list in ["requests", "limits"] {
        let earlier = &before["resources"][list];
        if resources.get(list).is_none() && earlier.is_null() {
            continue;
        }
        let quantities = edit::child(&mut resources, list);
        for name in ["cpu", "memory"] {
            edit::keep(quantities, earlier, name);
        }
        if earlier.is_null() && quantities.as_object().is_some_and(serde_json::Map::is_empty) {
            edit::take(&mut resources, list);
        }
    }
    edit::replace(container, "resources", Some(resources).filter(|resources| !resources.is_null()));
}
