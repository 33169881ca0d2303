//! A ClusterRole with an aggregation rule has the rules of all ClusterRoles that it selects.
//!
//! Watches ClusterRoles; owns the rules of those that aggregate.
//! (Kubernetes: `pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go`.)

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::PostParams;
use minik8s_api::selector::LabelSelector;
use minik8s_client::{Client, Lister, WorkQueue, is_not_found};

use crate::manager::{Context, Reconciler};

/// See the module.
#[derive(Clone)]
pub struct ClusterRoleAggregation {
    client: Client,
    roles: Lister<ClusterRole>,
    queue: WorkQueue<String>,
}

impl ClusterRoleAggregation {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let roles = context.informers.informer::<ClusterRole>();
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let (add, lister) = (queue.clone(), roles.lister());
        // Any role may be selected by any other; those that aggregate are few.
        roles.on_event(move |_| {
            for role in lister.list().iter().filter(|role| role.aggregation_rule.is_some()) {
                add.add(role.metadata.name.clone().unwrap_or_default());
            }
        });
        Self { client: context.client.clone(), roles: roles.lister(), queue }
    }
}

/// The rules that an aggregating role should have: those of the roles that it selects, in the order of their names, each once.
fn aggregate(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Vec<PolicyRule> {
    let selectors = role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        let value = serde_json::to_value(selector).ok();
        let selector = LabelSelector::from_value(value.as_ref()).unwrap_or_else(|_| LabelSelector::nothing());
        for other in all {
            let itself = other.metadata.name == role.metadata.name;
            if itself || !selector.matches_set(other.metadata.labels.as_ref()) {
                continue;
            }
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

impl Reconciler for ClusterRoleAggregation {
    const NAME: &'static str = "clusterrole-aggregation-controller";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let role = self.roles.get("", &name).filter(|role| role.aggregation_rule.is_some());
        let Some(role) = role else { return Ok(()) };
        let rules = aggregate(&role, &self.roles.list());
        if role.rules.clone().unwrap_or_default() == rules {
            return Ok(());
        }
        let fresh = ClusterRole { rules: Some(rules), ..ClusterRole::clone(&role) };
        match self.client.all::<ClusterRole>().replace(&name, &PostParams::default(), &fresh).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_come_from_selected_roles_in_order_and_once() {
        let role = |name: &str, more: serde_json::Value| -> ClusterRole {
            let mut value = json!({"metadata": {"name": name}});
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(value).unwrap()
        };
        let part = |name: &str, verbs: &[&str]| {
            let mut part = role(name, json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]}));
            part.metadata.labels = Some([("to-view".to_owned(), "true".to_owned())].into());
            Arc::new(part)
        };
        let view =
            role("view", json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]}}));
        let all = [part("a", &["get"]), part("b", &["get"]), part("c", &["list"]), Arc::new(role("other", json!({})))];
        let verbs: Vec<_> = aggregate(&view, &all).into_iter().flat_map(|rule| rule.verbs).collect();
        assert_eq!(verbs, ["get", "list"]);
    }
}
