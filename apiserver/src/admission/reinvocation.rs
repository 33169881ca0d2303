//! The second pass of the mutating chain: what a webhook or policy changes late, the plugins before it see once more.
//!
//! In-tree plugins always run again; webhooks and policies only where they ask for it (`reinvocationPolicy: IfNeeded`)
//! and the object has changed since. `k8s.io/apiserver/pkg/admission/reinvocation.go`,
//! `plugin/webhook/mutating/reinvocationcontext.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What the first pass leaves for the second.
#[derive(Debug, Default)]
pub struct Reinvocation {
    second_pass: bool,
    wanted: bool,
    plugins: BTreeMap<&'static str, Calls>,
}

/// What a plugin has called.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Called, would be called again, and nothing has changed since.
    reinvocable: Vec<String>,
    /// To be called again.
    due: BTreeSet<String>,
    /// The object after the plugin's last call.
    output: Option<Value>,
}

impl Reinvocation {
    /// Which pass this is, counted from 0.
    pub(super) fn round(&self) -> usize {
        usize::from(self.second_pass)
    }

    /// Begins the second pass, if there is to be one.
    pub(super) fn begin_second_pass(&mut self) -> bool {
        self.second_pass = self.wanted;
        self.second_pass
    }

    /// Begins a plugin's turn.
    pub(super) fn begin(&mut self, plugin: &'static str, object: Option<&Value>) {
        let second_pass = self.second_pass;
        let calls = self.plugins.entry(plugin).or_default();
        if second_pass && calls.output.as_ref() != object {
            calls.changed();
        }
    }

    /// Whether a hook is called in this pass.
    pub(super) fn calls(&self, plugin: &'static str, hook: &str) -> bool {
        !self.second_pass || self.plugins.get(plugin).is_some_and(|calls| calls.due.contains(hook))
    }

    /// A hook was called; whether it changed the object, and whether it may be called again.
    pub(super) fn called(&mut self, plugin: &'static str, hook: &str, changed: bool, again: bool) {
        self.wanted |= changed;
        let calls = self.plugins.entry(plugin).or_default();
        if changed {
            calls.changed();
        }
        if again {
            calls.reinvocable.push(hook.to_owned());
        }
    }

    /// Ends a plugin's turn.
    pub(super) fn end(&mut self, plugin: &'static str, object: Option<&Value>) {
        if let Some(calls) = self.plugins.get_mut(plugin) {
            calls.output = object.cloned();
        }
    }
}

impl Calls {
    fn changed(&mut self) {
        self.due.extend(self.reinvocable.drain(..));
    }
}
