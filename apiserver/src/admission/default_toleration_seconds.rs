//! DefaultTolerationSeconds: a pod stays five minutes on a node that fails
//! (`plugin/pkg/admission/defaulttolerationseconds/admission.go`).

use async_trait::async_trait;
use minik8s_api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, items, push};

const TOLERATION_SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// See the module.
pub struct DefaultTolerationSeconds;

fn tolerates(pod: &Value, taint: &str) -> bool {
    items(&pod["spec"]["tolerations"]).any(|toleration| {
        let field = |name: &str| toleration[name].as_str().unwrap_or_default();
        (field("key") == taint || field("key").is_empty()) && matches!(field("effect"), "NoExecute" | "")
    })
}

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, write: &Attributes<'_>) -> bool {
        matches!(write.operation, Operation::Create | Operation::Update) && write.is("", "pods")
    }

    async fn admit(&self, write: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = &mut write.object else {
            return Ok(());
        };
        let missing: Vec<&str> = TAINTS.into_iter().filter(|taint| !tolerates(pod, taint)).collect();
        for taint in missing {
            push(
                &mut pod["spec"]["tolerations"],
                json!({ "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS }),
            );
        }
        Ok(())
    }
}
