//! Parts that only some tests need and that not every machine has: a browser, RabbitMQ, a pooler.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::bail;

use super::packages;
use crate::{
    project::{Project, ServersHome},
    servers::{apt, rabbit, wheels},
    ui,
};

/// What the tests of manifests need of PyPI.
const MANIFESTS: &str = "shared/tests/deploy/requirements.txt";

/// What the test of the Dockerfile needs of it.
const HADOLINT: &str = "shared/tests/deploy/hadolint.txt";

const BROWSERS: [&str; 5] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
];

/// Which parts the tests use. They tell by reading the part's variable, so nothing is installed for
/// tests that do not exist and no list has to be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    chromium: bool,
    rabbitmq: bool,
    pgbouncer: bool,
    pub(crate) pika: bool,
    promtool: bool,
    manifests: bool,
    node: bool,
    hadolint: bool,
}

impl Uses {
    pub(crate) fn of(root: &Path) -> Self {
        let mut uses = Self::default();
        let mut folders: Vec<PathBuf> = ["api", "loadtest", "shared", "worker"]
            .map(|name| root.join(name))
            .to_vec();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ext| ext == "rs") {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    uses.chromium |= text.contains("TEST_CHROMIUM");
                    uses.rabbitmq |= text.contains("TEST_RABBITMQ_URL");
                    uses.pgbouncer |= text.contains("TEST_PGBOUNCER");
                    uses.pika |= text.contains("TEST_PIKA");
                    uses.promtool |= text.contains("TEST_PROMTOOL");
                    uses.manifests |= text.contains("TEST_KUBERNETES_VALIDATE");
                    uses.node |= text.contains("TEST_NODE");
                    uses.hadolint |= text.contains("TEST_HADOLINT");
                }
            }
        }
        uses
    }
}

/// What was found of them.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) chromium: Option<PathBuf>,
    pub(crate) pgbouncer: Option<PathBuf>,
    pub(crate) promtool: Option<PathBuf>,
    /// The packages of `kubernetes-validate`.
    pub(crate) kubernetes_validate: Option<PathBuf>,
    pub(crate) kubectl: Option<PathBuf>,
    /// Runs the script for k6.
    pub(crate) node: Option<PathBuf>,
    pub(crate) hadolint: Option<PathBuf>,
    /// `RABBITMQ_URL`: somebody else's server.
    pub(crate) given_rabbitmq: Option<String>,
    /// One of our own is started.
    pub(crate) private_rabbitmq: bool,
    /// With which tests start brokers of their own.
    pub(crate) rabbitmq: Option<rabbit::Programs>,
    /// What will not run, and why.
    pub(crate) missing: Vec<String>,
}

impl Parts {
    /// Finds them, or (root on Debian) installs them.
    ///
    /// # Errors
    /// A part is missing and `REQUIRE_ALL` says that none may be.
    pub(crate) fn find(project: &Project, uses: Uses) -> anyhow::Result<Self> {
        let mut parts = Self::default();
        if uses.chromium {
            match chromium(project) {
                Ok(path) => parts.chromium = Some(path),
                Err(why) => parts
                    .missing
                    .push(format!("tests of the console in a browser: {why:#}")),
            }
            project.interrupt.check()?;
        }
        if uses.pgbouncer {
            match pgbouncer(project) {
                Ok(path) => parts.pgbouncer = Some(path),
                Err(why) => parts
                    .missing
                    .push(format!("tests behind a pooler: {why:#}")),
            }
            project.interrupt.check()?;
        }
        if uses.promtool {
            match promtool(project) {
                Ok(path) => parts.promtool = Some(path),
                Err(why) => parts.missing.push(format!(
                    "tests of metrics and alerts with promtool: {why:#}"
                )),
            }
            project.interrupt.check()?;
        }
        if uses.manifests {
            match packages::fetched(project, MANIFESTS) {
                Ok(path) => parts.kubernetes_validate = Some(path),
                Err(why) => parts
                    .missing
                    .push(format!("tests of manifests and compose.yaml: {why:#}")),
            }
            parts.kubectl = on_path(project, "kubectl");
            project.interrupt.check()?;
        }
        if uses.hadolint {
            match packages::fetched(project, HADOLINT) {
                Ok(folder) => parts.hadolint = Some(folder.join("bin/hadolint")),
                Err(why) => parts
                    .missing
                    .push(format!("the test of the Dockerfile: {why:#}")),
            }
            project.interrupt.check()?;
        }
        if uses.node {
            match node(project) {
                Ok(path) => parts.node = Some(path),
                Err(why) => parts
                    .missing
                    .push(format!("the test of the script for k6: {why:#}")),
            }
            project.interrupt.check()?;
        }
        if uses.rabbitmq {
            parts.given_rabbitmq = project.env.get("RABBITMQ_URL").map(str::to_owned);
            match rabbit::Programs::find(project) {
                Ok(programs) => parts.rabbitmq = Some(programs),
                Err(why) => parts.missing.push(format!("tests with RabbitMQ: {why:#}")),
            }
            parts.private_rabbitmq = parts.given_rabbitmq.is_none() && parts.rabbitmq.is_some();
            project.interrupt.check()?;
        }
        if project.env.is_on("REQUIRE_ALL") && !parts.missing.is_empty() {
            bail!(
                "REQUIRE_ALL is set and these could not run: {}",
                parts.missing.join("; ")
            );
        }
        // Nobody has to have it: manifests are checked as our own script renders them.
        if uses.manifests && parts.kubectl.is_none() {
            parts.missing.push(
                "the comparison of rendered manifests with kubectl's: it is not on PATH".to_owned(),
            );
        }
        Ok(parts)
    }
}

impl Parts {
    /// The folder for `PYTHONPATH` that holds pika, where tests publish with it.
    ///
    /// # Errors
    /// It cannot be had and `REQUIRE_ALL` says that it must.
    pub(crate) fn pika(
        &mut self,
        project: &Project,
        home: &ServersHome,
        uses: Uses,
    ) -> anyhow::Result<Option<PathBuf>> {
        if !uses.pika || self.rabbitmq.is_none() && self.given_rabbitmq.is_none() {
            return Ok(None);
        }
        match wheels::PIKA.unpacked(project, home) {
            Ok(folder) => Ok(Some(folder.join("files"))),
            Err(why) if project.env.is_on("REQUIRE_ALL") => Err(why),
            Err(why) => {
                self.missing
                    .push(format!("tests that publish with pika: {why:#}"));
                Ok(None)
            }
        }
    }
}

fn pgbouncer(project: &Project) -> anyhow::Result<PathBuf> {
    let find = || {
        let path = project.env.get("PATH").unwrap_or_default();
        // Debian keeps it where an ordinary user's PATH does not lead.
        std::env::split_paths(path)
            .chain([PathBuf::from("/usr/sbin")])
            .map(|dir| dir.join("pgbouncer"))
            .find(|file| file.is_file())
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    if apt::is_possible() {
        apt::install(project, &["pgbouncer"])?;
        if let Some(found) = find() {
            return Ok(found);
        }
    }
    bail!("there is no pgbouncer: install it")
}

fn promtool(project: &Project) -> anyhow::Result<PathBuf> {
    if let Some(found) = on_path(project, "promtool") {
        return Ok(found);
    }
    if apt::is_possible() {
        apt::install(project, &["prometheus"])?;
        if let Some(found) = on_path(project, "promtool") {
            return Ok(found);
        }
    }
    bail!("there is no promtool: install Prometheus")
}

fn node(project: &Project) -> anyhow::Result<PathBuf> {
    if let Some(found) = on_path(project, "node") {
        return Ok(found);
    }
    if apt::is_possible() {
        apt::install(project, &["nodejs"])?;
        if let Some(found) = on_path(project, "node") {
            return Ok(found);
        }
    }
    bail!("there is no node: install Node.js 18 or newer")
}

fn on_path(project: &Project, program: &str) -> Option<PathBuf> {
    let path = project.env.get("PATH").unwrap_or_default();
    std::env::split_paths(path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn chromium(project: &Project) -> anyhow::Result<PathBuf> {
    if let Some(path) = project.env.get("TEST_CHROMIUM") {
        let path = PathBuf::from(path);
        if path.is_file() {
            return Ok(path);
        }
        bail!("TEST_CHROMIUM names {}, which is no file", path.display());
    }
    let path = project.env.get("PATH").unwrap_or_default();
    if let Some(found) = browser_on(path) {
        return Ok(found);
    }
    if apt::is_possible() {
        ui::progress("Missing", "a browser for the tests of the console");
        apt::install(project, &["chromium"])?;
        if let Some(found) = browser_on(path) {
            return Ok(found);
        }
    }
    bail!("there is no chromium on PATH: install it, or set TEST_CHROMIUM")
}

fn browser_on(path: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .flat_map(|dir| BROWSERS.map(|name| dir.join(name)))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{env::Env, interrupt::Interrupt};

    #[test]
    fn a_part_is_used_when_a_source_names_its_variable() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Uses::of(root.path()), Uses::default());
        let tests = root.path().join("api/tests/console");
        fs::create_dir_all(&tests).unwrap();
        fs::write(tests.join("note.md"), "TEST_RABBITMQ_URL").unwrap();
        fs::write(tests.join("page.rs"), r#"env("TEST_CHROMIUM")"#).unwrap();
        let uses = Uses::of(root.path());
        assert!(uses.chromium && !uses.rabbitmq);
    }

    #[test]
    fn a_missing_part_is_listed_and_with_require_all_refused() {
        let root = tempfile::tempdir().unwrap();
        let nowhere = root.path().join("nowhere").display().to_string();
        let project = |require: &str| Project {
            root: root.path().to_path_buf(),
            local: root.path().join(".local"),
            env: Env::from([
                ("TEST_CHROMIUM", nowhere.as_str()),
                ("REQUIRE_ALL", require),
            ]),
            interrupt: Interrupt::default(),
        };
        let uses = Uses {
            chromium: true,
            ..Uses::default()
        };
        let parts = Parts::find(&project("0"), uses).unwrap();
        assert_eq!(parts.missing.len(), 1);
        assert!(
            parts.missing[0].contains("which is no file"),
            "{:?}",
            parts.missing
        );
        let refused = Parts::find(&project("1"), uses).unwrap_err().to_string();
        assert!(refused.starts_with("REQUIRE_ALL is set"), "{refused}");
        assert!(Parts::find(&project("1"), Uses::default()).is_ok());
    }

    #[test]
    fn a_browser_is_found_on_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        assert_eq!(browser_on(&path), None);
        fs::write(dir.path().join("chromium"), "").unwrap();
        assert_eq!(browser_on(&path), Some(dir.path().join("chromium")));
    }
}
