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

/// A pod's `requests` or `limits`. Sidecars run beside all that start after them; overhead counts where asked for.
pub(super) fn pod_total(pod: &Value, field: &str, with_overhead: bool) -> Resources {
    let spec = &pod["spec"];
    let of = |container: &Value| quantities(&container["resources"][field]);
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
    // What is set for the pod as a whole stands for the sum.
    total.extend(quantities(&spec["resources"][field]));
    if with_overhead {
        let overhead = quantities(&spec["overhead"]);
        let counted =
            overhead.into_iter().filter(|(name, _)| field == "requests" || total.contains_key(name)).collect();
        add(&mut total, &counted);
    }
    total
}
