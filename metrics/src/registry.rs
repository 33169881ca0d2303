//! Who has something to tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::text::Text;

/// Writes what it knows.
pub type Source = Arc<dyn Fn(&mut Text) + Send + Sync>;

/// Who has something to tell, by name. Clones are the same registry.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<String, Source>>>);

impl Registry {
    /// Adds a source, in place of an earlier one of that name: a component that was started again begins anew.
    pub fn set(&self, name: impl Into<String>, source: impl Fn(&mut Text) + Send + Sync + 'static) {
        self.0.lock().insert(name.into(), Arc::new(source));
    }

    /// Lets all sources write.
    pub fn write(&self, text: &mut Text) {
        let sources: Vec<Source> = self.0.lock().values().cloned().collect();
        for source in sources {
            source(text);
        }
    }
}
