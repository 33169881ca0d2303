//! The plugins, one a file. A new one is a file and a row in [`default_plugins`].

pub mod default_preemption;
pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_balanced;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod pod_topology_spread;
pub mod scheduling_gates;
pub mod taint_toleration;
pub mod unsupported;
pub mod volume_binding;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use minik8s_client::Lister;

use crate::framework::Plugin;

/// The default profile, in Kubernetes' order: cheap refusals first.
pub fn default_plugins(claims: Option<Lister<PersistentVolumeClaim>>) -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(scheduling_gates::SchedulingGates),
        Box::new(unsupported::Unsupported),
        Box::new(node_unschedulable::NodeUnschedulable),
        Box::new(node_name::NodeName),
        Box::new(taint_toleration::TaintToleration),
        Box::new(node_affinity::NodeAffinity),
        Box::new(node_ports::NodePorts),
        Box::new(node_resources_fit::NodeResourcesFit::default()),
        Box::new(volume_binding::VolumeBinding { claims }),
        Box::new(pod_topology_spread::PodTopologySpread),
        Box::new(inter_pod_affinity::InterPodAffinity),
        Box::new(default_preemption::DefaultPreemption),
        Box::new(node_resources_balanced::NodeResourcesBalancedAllocation),
        Box::new(image_locality::ImageLocality),
    ]
}
