//! What the arguments of `cargo xtask test` mean for what has to be built.

/// Packages whose tests cannot start the processes: nothing they may depend on has one.
const WITHOUT_PROCESSES: [&str; 2] = ["shared", "xtask"];

/// Options of cargo that take a value in the next argument.
const PACKAGE_OPTIONS: [&str; 2] = ["-p", "--package"];

/// A reading of the arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    packages: Vec<String>,
    everything: bool,
}

impl Selection {
    pub(crate) fn of(args: &[String]) -> Self {
        let mut packages = Vec::new();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            if arg == "--" {
                break;
            }
            if PACKAGE_OPTIONS.contains(&arg.as_str()) {
                packages.extend(rest.next().cloned());
            } else if let Some(name) = arg.strip_prefix("--package=") {
                packages.push(name.to_owned());
            } else if let Some(name) = arg.strip_prefix("-p")
                && !name.is_empty()
            {
                packages.push(name.trim_start_matches('=').to_owned());
            }
        }
        Self {
            packages,
            everything: args.is_empty(),
        }
    }

    /// No arguments at all: the run that counts.
    pub(crate) fn is_everything(&self) -> bool {
        self.everything
    }

    /// Whether this package is named.
    pub(crate) fn names(&self, package: &str) -> bool {
        self.packages.iter().any(|name| name == package)
    }

    pub(crate) fn names_packages(&self) -> bool {
        !self.packages.is_empty()
    }

    /// Whether a selected test may start api, worker or simulator.
    pub(crate) fn needs_processes(&self) -> bool {
        !self.names_packages()
            || self
                .packages
                .iter()
                .any(|package| !WITHOUT_PROCESSES.contains(&package.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::Selection;

    fn of(args: &str) -> Selection {
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        Selection::of(&args)
    }

    #[test]
    fn without_arguments_everything_runs() {
        assert!(of("").is_everything());
        assert!(of("").needs_processes());
        assert!(!of("cancel").is_everything());
        assert!(of("cancel").needs_processes());
    }

    #[test]
    fn packages_are_found_in_every_spelling() {
        for args in [
            "-p shared",
            "-pshared",
            "--package shared x",
            "--package=shared",
        ] {
            let selection = of(args);
            assert!(selection.names_packages(), "{args}");
            assert!(!selection.needs_processes(), "{args}");
        }
        assert!(of("-p shared -p balas-api").needs_processes());
        assert!(of("-p shared -p chaos").names("chaos") && !of("chaos").names("chaos"));
        assert!(!of("x -- -p shared").names_packages());
    }
}
