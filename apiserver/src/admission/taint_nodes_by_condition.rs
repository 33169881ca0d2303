//! TaintNodesByCondition: a new node takes no pods until it is seen to be ready
//! (`plugin/pkg/admission/nodetaint/admission.go`).

use async_trait::async_trait;
use minik8s_api::status::Status;
use serde_json::json;

use super::{Attributes, Operation, Plugin, items, push};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const NO_SCHEDULE: &str = "NoSchedule";

/// See the module.
pub struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        write.operation == Operation::Create && write.is("", "nodes")
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(node) = &mut write.object else {
            return Ok(());
        };
        let tainted =
            items(&node["spec"]["taints"]).any(|taint| taint["key"] == NOT_READY && taint["effect"] == NO_SCHEDULE);
        if !tainted {
            push(&mut node["spec"]["taints"], json!({ "key": NOT_READY, "effect": NO_SCHEDULE }));
        }
        Ok(())
    }
}
