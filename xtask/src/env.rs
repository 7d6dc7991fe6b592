//! The environment, read once at start and handed around as a value, so that every rule about it
//! can be tested without touching the process.

use std::collections::BTreeMap;

/// The variables this process was started with. An empty variable counts as unset, as it does in
/// the services themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env(BTreeMap<String, String>);

impl Env {
    /// Reads the process environment; what is not UTF-8 cannot be one of our settings and is left out.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one home of the environment in this tool"
    )]
    pub(crate) fn read() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    /// The value of `name`, if it is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.trim().is_empty())
    }

    /// Whether a switch such as `REQUIRE_ALL=1` is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| !matches!(value, "0" | "false" | "no" | "off"))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Env {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Env;

    #[test]
    fn empty_variables_are_unset_and_switches_have_an_off() {
        let env = Env::from([("A", "x"), ("B", "  "), ("ON", "1"), ("OFF", "0")]);
        assert_eq!(env.get("A"), Some("x"));
        assert_eq!(env.get("B"), None);
        assert_eq!(env.get("C"), None);
        assert!(env.is_on("ON"));
        assert!(!env.is_on("OFF"));
        assert!(!env.is_on("B"));
    }
}
