//! The points between two steps of a payment by card, where tests end the process.

/// What a test wants to be told, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Steps {
    #[cfg(feature = "test-util")]
    hook: Option<std::sync::Arc<dyn Fn(&'static str) + Send + Sync>>,
}

impl Steps {
    #[cfg(feature = "test-util")]
    pub(crate) fn hooked(hook: impl Fn(&'static str) + Send + Sync + 'static) -> Steps {
        Steps { hook: Some(std::sync::Arc::new(hook)) }
    }

    /// The step of this name is done.
    #[cfg_attr(not(feature = "test-util"), expect(clippy::unused_self, reason = "nobody is told"))]
    pub(crate) fn at(&self, name: &'static str) {
        #[cfg(feature = "test-util")]
        if let Some(hook) = &self.hook {
            hook(name);
        }
        #[cfg(not(feature = "test-util"))]
        let _ = name;
    }
}
