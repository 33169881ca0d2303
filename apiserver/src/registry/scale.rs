//! The `scale` subresource: an `autoscaling/v1` Scale read from and written into an object.
//!
//! `pkg/registry/apps/deployment/storage/storage.go` `ScaleREST`.

use minik8s_api::kinds::GroupKind;
use minik8s_api::meta;
use minik8s_api::patch::{json, merge};
use minik8s_api::status::Status;
use minik8s_api::strategy::{scale_errors, strategy_for};
use serde_json::Value;

use super::patch::{Patch, PatchType};
use super::read::Freshness;
use super::{Context, Registry, Target, Written};
use crate::options::WriteOptions;

impl Registry {
    /// An object's Scale.
    pub async fn get_scale(&self, target: &Target, freshness: Freshness) -> Result<Value, Status> {
        let object = self.get(target, freshness).await?;
        self.scale_of(target, &self.served(target, &object).await?)
    }

    fn scale_of(&self, target: &Target, object: &Value) -> Result<Value, Status> {
        strategy_for(&target.kind).scale(object).ok_or_else(Status::unknown_resource)
    }

    /// Replaces an object's Scale; answers with the new one.
    pub async fn update_scale(
        &self,
        context: &Context,
        target: &Target,
        scale: Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let name = meta::name(&scale);
        if name != target.name {
            return Err(target.name_mismatch(name));
        }
        let written = self.write_scale(context, target, options, &mut |_| Ok(scale.clone())).await?;
        self.scale_of(target, &written.object)
    }

    /// Patches an object's Scale; answers with the new one.
    pub async fn patch_scale(
        &self,
        context: &Context,
        target: &Target,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let mut change = |scale: Value| {
            let mut scale = scale;
            match patch.patch_type {
                PatchType::Json => json::apply(&mut scale, &patch.body)?,
                // A Scale has neither lists nor more than one field that can be applied.
                PatchType::Merge | PatchType::Strategic | PatchType::Apply => merge::apply(&mut scale, &patch.body)?,
            }
            Ok(scale)
        };
        let written = self.write_scale(context, target, options, &mut change).await?;
        self.scale_of(target, &written.object)
    }

    async fn write_scale(
        &self,
        context: &Context,
        target: &Target,
        options: &WriteOptions,
        wanted: &mut (dyn FnMut(Value) -> Result<Value, Status> + Send),
    ) -> Result<Written, Status> {
        let strategy = strategy_for(&target.kind);
        let mut change = |object: &mut Value| {
            let present = self.scale_of(target, object)?;
            let scale = wanted(present.clone())?;
            let errors = scale_errors(&scale);
            if !errors.is_empty() {
                return Err(Status::invalid(&GroupKind::new("autoscaling", "Scale"), &target.name, errors));
            }
            // UID and resourceVersion of the Scale are those of the object: conditions of this write.
            for (field, read) in [("uid", meta::uid as fn(&Value) -> &str), ("resourceVersion", meta::resource_version)]
            {
                let asked = read(&scale);
                if !asked.is_empty() && asked != read(&present) {
                    meta::set(object, field, asked);
                }
            }
            strategy.set_scale(object, scale["spec"]["replicas"].as_i64().unwrap_or(0));
            Ok(())
        };
        self.modify(context, target, options, &mut change).await
    }
}
