//! Fields of features that are off by default: a write that sets them is taken without them.
//! Mirrors `dropDisabledFields` of `pkg/api/pod/util.go` with the feature gates of Kubernetes 1.37 as they come.
use serde_json::Value;

/// Where a pod's spec has them; a `*` stands for every element of a list.
const FIELDS: &[&[&str]] = &[
    &["evictionResponders"],
    &["schedulingGroup"],
    &["containers", "*", "lifecycle", "stopSignal"],
    &["initContainers", "*", "lifecycle", "stopSignal"],
    &["ephemeralContainers", "*", "lifecycle", "stopSignal"],
    &["containers", "*", "volumeMounts", "*", "bindMountOptions"],
    &["initContainers", "*", "volumeMounts", "*", "bindMountOptions"],
    &["ephemeralContainers", "*", "volumeMounts", "*", "bindMountOptions"],
    &["volumes", "*", "emptyDir", "mode"],
    &["volumes", "*", "secret", "defaultUser"],
    &["volumes", "*", "secret", "items", "*", "user"],
    &["volumes", "*", "configMap", "defaultUser"],
    &["volumes", "*", "configMap", "items", "*", "user"],
    &["volumes", "*", "downwardAPI", "defaultUser"],
    &["volumes", "*", "downwardAPI", "items", "*", "user"],
    &["volumes", "*", "projected", "defaultUser"],
    &["volumes", "*", "projected", "sources", "*", "secret", "items", "*", "user"],
    &["volumes", "*", "projected", "sources", "*", "configMap", "items", "*", "user"],
    &["volumes", "*", "projected", "sources", "*", "downwardAPI", "items", "*", "user"],
    &["volumes", "*", "projected", "sources", "*", "serviceAccountToken", "user"],
    &["volumes", "*", "projected", "sources", "*", "clusterTrustBundle", "user"],
    &["volumes", "*", "projected", "sources", "*", "podCertificate", "user"],
];
const CONTAINER_LISTS: &[&str] = &["containers", "initContainers", "ephemeralContainers"];
const PROBES: &[&str] = &["livenessProbe", "readinessProbe", "startupProbe"];
const HOOKS: &[&str] = &["postStart", "preStop"];

/// Takes them out of a pod's spec, or of a template's.
pub fn drop_disabled_fields(spec: &mut Value) {
    for path in FIELDS {
        drop_at(spec, path);
    }
    for list in CONTAINER_LISTS {
        for probe in PROBES {
            drop_at(spec, &[list, "*", probe, "grpc", "mode"]);
            drop_at(spec, &[list, "*", probe, "httpGet", "protocol"]);
        }
        for hook in HOOKS {
            drop_at(spec, &[list, "*", "lifecycle", hook, "httpGet", "protocol"]);
        }
    }
}

fn drop_at(value: &mut Value, path: &[&str]) {
    match path {
        ["*", rest @ ..] => value.as_array_mut().into_iter().flatten().for_each(|element| drop_at(element, rest)),
        [last] => {
            if let Some(map) = value.as_object_mut() {
                map.remove(*last);
            }
        }
        [name, rest @ ..] => {
            if let Some(member) = value.get_mut(*name) {
                drop_at(member, rest);
            }
        }
        [] => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_off_is_dropped_and_the_rest_stays() {
        let mut spec = json!({
            "schedulingGroup": {},
            "containers": [{"name": "c", "lifecycle": {"stopSignal": "SIGTERM", "preStop": {"sleep": {"seconds": 1}}}}],
            "volumes": [{"name": "v", "secret": {"defaultUser": 1, "items": [{"key": "k", "user": 2}]}}],
        });
        drop_disabled_fields(&mut spec);
        let rest = json!({
            "containers": [{"name": "c", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}],
            "volumes": [{"name": "v", "secret": {"items": [{"key": "k"}]}}],
        });
        assert_eq!(spec, rest);
    }
}
