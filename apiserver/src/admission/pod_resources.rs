//! What a whole pod asks for: the sum over its containers, or the most that its start needs
//! (`k8s.io/component-helpers/resource/helpers.go`).

use std::collections::BTreeMap;

use minik8s_api::quantity::Quantity;
use serde_json::Value;

use super::items;

/// Quantities by resource name.
pub(super) type Resources = BTreeMap<String, Quantity>;

/// Reads a map of quantities (`requests`, `limits`, `hard`, …).
pub(super) fn quantities(map: &Value) -> Resources {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::from_value(value).ok()?))).collect()
}

/// Adds each quantity.
pub(super) fn add(sum: &mut Resources, other: &Resources) {
    for (name, quantity) in other {
        let total = sum.remove(name).map_or(*quantity, |own| own + *quantity);
        sum.insert(name.clone(), total);
    }
}

fn raise(most: &mut Resources, other: &Resources) {
    for (name, quantity) in other {
        if most.get(name).is_none_or(|own| own < quantity) {
            most.insert(name.clone(), *quantity);
        }
    }
}

/// Sums up containers. Sidecars run beside all that start after them.
fn aggregate(spec: &Value, of: impl Fn(&Value) -> Resources) -> Resources {
    let (mut total, mut sidecars, mut start) = (Resources::new(), Resources::new(), Resources::new());
    for container in items(&spec["containers"]) {
        add(&mut total, &of(container));
    }
    for container in items(&spec["initContainers"]) {
        let own = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut start, &sidecars);
        } else {
            let mut beside = sidecars.clone();
            add(&mut beside, &own);
            raise(&mut start, &beside);
        }
    }
    raise(&mut total, &start);
    total
}

/// What is said of the pod as a whole: its own resources stand for the sum; overhead counts where asked for.
fn with_whole(mut total: Resources, spec: &Value, field: &str, with_overhead: bool) -> Resources {
    total.extend(quantities(&spec["resources"][field]));
    if with_overhead {
        let overhead = quantities(&spec["overhead"]);
        let counted =
            overhead.into_iter().filter(|(name, _)| field == "requests" || total.contains_key(name)).collect();
        add(&mut total, &counted);
    }
    total
}

/// A pod's `requests` or `limits`, as its spec has them.
pub(super) fn pod_total(pod: &Value, field: &str, with_overhead: bool) -> Resources {
    let spec = &pod["spec"];
    let total = aggregate(spec, |container| quantities(&container["resources"][field]));
    with_whole(total, spec, field, with_overhead)
}

/// The same with overhead and, while the pod is resized, what it has or is to have if that is more. A resize that its node
/// can never do does not count (`UseStatusResources` there).
pub(super) fn pod_usage(pod: &Value, field: &str) -> Resources {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let mut pending = items(&status["conditions"]).filter(|condition| condition["type"] == "PodResizePending");
    let infeasible = pending.next().is_some_and(|condition| condition["reason"] == "Infeasible");
    let status_of = |container: &Value| {
        let lists = ["containerStatuses", "initContainerStatuses"];
        let mut all = lists.into_iter().flat_map(|list| items(&status[list]));
        all.find(|status| status["name"] == container["name"])
    };
    let wish = |container: &Value| match infeasible {
        true => Resources::new(),
        false => quantities(&container["resources"][field]),
    };
    let told = |list: Option<&Value>| list.filter(|list| list.is_object()).map(quantities);
    let allocated = |container: &Value| told(status_of(container).map(|status| &status["allocatedResources"]));
    let actuated = |container: &Value| told(status_of(container).map(|status| &status["resources"][field]));
    let mut total = aggregate(spec, wish);
    if field == "requests" {
        raise(&mut total, &aggregate(spec, |container| allocated(container).unwrap_or_else(|| wish(container))));
        let had = |container: &Value| actuated(container).or_else(|| allocated(container));
        raise(&mut total, &aggregate(spec, |container| had(container).unwrap_or_else(|| wish(container))));
    } else {
        raise(&mut total, &aggregate(spec, |container| actuated(container).unwrap_or_else(|| wish(container))));
    }
    with_whole(total, spec, field, true)
}
