//! The update that takes everything down first. (Kubernetes: `pkg/controller/deployment/recreate.go`.)

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{DeploymentController, Result, Work, wanted};
use crate::pods;

impl DeploymentController {
    pub(super) async fn rollout_recreate(&self, work: &mut Work, sets: Vec<ReplicaSet>) -> Result<()> {
        let (new, mut old) = self.sync_revision(work, sets, false).await?;
        let mut scaled_down = false;
        for set in old.iter_mut().filter(|set| wanted(set) > 0) {
            scaled_down |= self.resize(work, set, 0).await?;
        }
        // Pods that have ended hold nothing; all others must be gone before new ones come.
        let running = self.pods_of(&old);
        let running = running.iter().any(|pod| !matches!(pods::phase(pod), "Failed" | "Succeeded"));
        if scaled_down || running {
            return self.sync_rollout_status(work, new.as_ref(), &old).await;
        }
        let sets = old.into_iter().chain(new).collect();
        let (new, old) = self.sync_revision(work, sets, true).await?;
        let Some(mut new) = new else { return Ok(()) };
        let size = work.replicas();
        self.resize(work, &mut new, size).await?;
        if super::progress::is_complete(work) {
            self.clean_up(work, &old).await?;
        }
        self.sync_rollout_status(work, Some(&new), &old).await
    }
}
