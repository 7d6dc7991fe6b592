//! Configuration from environment variables, read once, all mistakes reported at once.
//!
//! Each concern declares its variables by reading them from [`Vars`]; the same declarations print
//! the table of `--help`, so help and behaviour cannot differ.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

/// Reads typed variables and remembers each declaration and each mistake.
#[derive(Debug)]
pub struct Vars {
    values: HashMap<String, String>,
    declared: Vec<Declared>,
    problems: Vec<String>,
}

#[derive(Debug)]
struct Declared {
    name: &'static str,
    default: String,
    help: &'static str,
}

/// Every variable that could not be used, one line each. It never shows a value, because a value
/// in the wrong variable may be a secret.
#[derive(Debug)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of the configuration variables cannot be used:",
            self.0.len()
        )?;
        self.0
            .iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigError {}

impl Vars {
    /// Takes the variables of this process. Empty ones count as unset, as compose files and
    /// ConfigMaps produce them for "nothing".
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one home of environment variables"
    )]
    pub fn from_process() -> Self {
        Self::from_map(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// Takes the variables from any other place, for tests.
    pub fn from_map<N, V>(values: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        let values = values
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .filter(|(_, value)| !value.trim().is_empty())
            .collect();
        Self {
            values,
            declared: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn declare(&mut self, name: &'static str, default: &str, help: &'static str) -> Option<String> {
        self.declared.push(Declared {
            name,
            default: default.to_owned(),
            help,
        });
        self.values.get(name).map(|value| value.trim().to_owned())
    }

    /// Records a mistake that spans several variables or that the type alone does not show.
    pub fn problem(&mut self, name: &str, what: impl fmt::Display) {
        self.problems.push(format!("{name}: {what}"));
    }

    /// A variable of any parseable type. `default` is text so that `--help` shows just what an
    /// operator would type.
    pub fn get<T>(&mut self, name: &'static str, default: &str, help: &'static str) -> T
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let given = self.declare(name, default, help);
        if let Some(text) = given {
            match text.parse() {
                Ok(value) => return value,
                Err(error) => self.problem(name, format_args!("{error}")),
            }
        }
        match default.parse() {
            Ok(value) => value,
            Err(error) => unreachable!("the default of {name} does not parse: {error}"),
        }
    }

    /// A number within inclusive bounds.
    pub fn within<T>(
        &mut self,
        name: &'static str,
        default: T,
        bounds: (T, T),
        help: &'static str,
    ) -> T
    where
        T: FromStr + PartialOrd + fmt::Display + Copy,
        T::Err: fmt::Display,
    {
        let value = self.get(name, &default.to_string(), help);
        if value < bounds.0 || value > bounds.1 {
            self.problem(
                name,
                format_args!("must lie between {} and {}", bounds.0, bounds.1),
            );
            return default;
        }
        value
    }

    /// A variable that may be absent.
    pub fn optional<T>(&mut self, name: &'static str, help: &'static str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        match self.declare(name, "", help)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(name, format_args!("{error}"));
                None
            }
        }
    }

    /// `true`/`false`, `1`/`0`, `yes`/`no`, `on`/`off`.
    pub fn flag(&mut self, name: &'static str, default: bool, help: &'static str) -> bool {
        let shown = if default { "true" } else { "false" };
        match self
            .declare(name, shown, help)
            .as_deref()
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            None => default,
            Some("true" | "1" | "yes" | "on") => true,
            Some("false" | "0" | "no" | "off") => false,
            Some(_) => {
                self.problem(name, "must be true or false");
                default
            }
        }
    }

    /// A duration in seconds; fractions are allowed.
    pub fn seconds(&mut self, name: &'static str, default: &str, help: &'static str) -> Duration {
        let seconds: f64 = self.get(name, default, help);
        match Duration::try_from_secs_f64(seconds) {
            Ok(duration) => duration,
            Err(error) => {
                self.problem(name, error);
                Duration::ZERO
            }
        }
    }

    /// A comma-separated list; blanks around the items are dropped.
    pub fn list(&mut self, name: &'static str, default: &str, help: &'static str) -> Vec<String> {
        let text = self
            .declare(name, default, help)
            .unwrap_or_else(|| default.to_owned());
        split(&text).collect()
    }

    /// A comma-separated list of secrets, so that one can be rotated: the first signs or calls,
    /// all verify.
    pub fn secrets(&mut self, name: &'static str, help: &'static str) -> Vec<SecretString> {
        let text = self.declare(name, "", help).unwrap_or_default();
        split(&text).map(SecretString::from).collect()
    }

    /// Like [`Vars::secrets`], but at least one must be given, each of at least `min_bytes`.
    pub fn required_secrets(
        &mut self,
        name: &'static str,
        min_bytes: usize,
        help: &'static str,
    ) -> Vec<SecretString> {
        let secrets = self.secrets(name, help);
        if secrets.is_empty() {
            self.problem(name, "is required");
        }
        let short =
            |secret: &SecretString| secrecy::ExposeSecret::expose_secret(secret).len() < min_bytes;
        if secrets.iter().any(short) {
            self.problem(
                name,
                format_args!("each secret needs at least {min_bytes} bytes"),
            );
        }
        secrets
    }

    /// A text that is a secret as a whole.
    pub fn secret_text(&mut self, name: &'static str, help: &'static str) -> Option<SecretString> {
        self.declare(name, "", help).map(SecretString::from)
    }

    /// The same variables once more, for who needs what another concern declares. Mistakes are told there.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            values: self.values.clone(),
            declared: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Ends the reading: every mistake, or nothing.
    ///
    /// # Errors
    /// When any variable read so far was missing or could not be parsed.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError(self.problems))
        }
    }

    /// The table of all declared variables for `--help`, in the order of declaration.
    #[must_use]
    pub fn help(&self) -> String {
        let mut text = String::from("Environment variables:\n");
        for Declared {
            name,
            default,
            help,
        } in &self.declared
        {
            let _ = match default.as_str() {
                "" => write!(text, "  {name}\n          {help}\n"),
                default => write!(text, "  {name}={default}\n          {help}\n"),
            };
        }
        text
    }

    /// The names of all declared variables, to check `.env.example` against.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.declared.iter().map(|declared| declared.name)
    }
}

fn split(text: &str) -> impl Iterator<Item = String> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_variable_is_named_at_once_and_no_value_is_shown() {
        let mut vars = Vars::from_map([("PORT", "hunter2"), ("DRAIN", "-1"), ("ON", "perhaps")]);
        vars.get::<u16>("PORT", "8080", "port");
        vars.seconds("DRAIN", "25", "grace");
        vars.flag("ON", true, "switch");
        vars.required_secrets("JWT_SECRET", 16, "secret");
        let text = vars.finish().unwrap_err().to_string();
        for name in ["PORT", "DRAIN", "ON", "JWT_SECRET"] {
            assert!(text.contains(name), "{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let mut vars = Vars::from_map([("PORT", " ")]);
        assert_eq!(vars.get::<u16>("PORT", "8080", "port"), 8080);
        assert!(vars.finish().is_ok());
    }
}
