//! Webhooks as their configurations describe them, compiled.

use std::time::Duration;

use minik8s_api::admission::{Named, Policy};
use minik8s_api::meta;
use minik8s_api::status::FieldPath;
use minik8s_clock::Clock;
use serde_json::Value;

use super::super::items;
use super::super::matching::Matching;
use crate::outgoing::webhook::WebhookClient;

/// `timeoutSeconds` where none is stored.
const DEFAULT_TIMEOUT_SECONDS: u64 = 10;

/// One webhook of a configuration.
pub(super) struct Webhook {
    /// Its name, as errors tell it.
    pub name: String,
    /// Configuration and name.
    pub id: String,
    pub matching: Result<Matching, String>,
    pub conditions: Vec<Named>,
    /// `failurePolicy: Ignore`
    pub ignores_failure: bool,
    /// `reinvocationPolicy: IfNeeded`
    pub reinvoked: bool,
    /// Its `sideEffects` permit to ask it about dry runs.
    pub allows_dry_run: bool,
    /// Among its `admissionReviewVersions`.
    pub speaks_v1: bool,
    pub timeout: Duration,
    pub client: Result<WebhookClient, String>,
}

/// The webhooks of a configuration, in order.
pub(super) fn webhooks(configuration: &Value, clock: &Clock) -> Vec<Webhook> {
    let name = meta::name(configuration);
    let webhooks = items(&configuration["webhooks"]);
    webhooks.enumerate().map(|(at, webhook)| Webhook::new(name, at, webhook, clock)).collect()
}

impl Webhook {
    /// The name of its configuration.
    pub(super) fn configuration(&self) -> &str {
        self.id.split_once('/').map_or("", |(configuration, _)| configuration)
    }

    fn new(configuration: &str, at: usize, webhook: &Value, clock: &Clock) -> Webhook {
        let text = |field: &str| webhook[field].as_str().unwrap_or_default();
        let (compiled, faults) = Policy::compile_webhook(webhook, &FieldPath::new("webhooks").index(at));
        let matching = match faults.first() {
            Some(fault) => Err(format!("{}: {}", fault.path, fault.message)),
            None => Matching::of_webhook(webhook),
        };
        let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(DEFAULT_TIMEOUT_SECONDS);
        Webhook {
            name: text("name").to_owned(),
            id: format!("{configuration}/{}", text("name")),
            matching,
            conditions: compiled.match_conditions,
            ignores_failure: text("failurePolicy") == "Ignore",
            reinvoked: text("reinvocationPolicy") == "IfNeeded",
            allows_dry_run: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            speaks_v1: items(&webhook["admissionReviewVersions"]).any(|version| version == "v1"),
            timeout: Duration::from_secs(seconds),
            client: WebhookClient::new(&webhook["clientConfig"], clock),
        }
    }
}
