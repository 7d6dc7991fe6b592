//! The image and the stack of containers, as far as they can be checked without building them.

use crate::kubernetes::check;
use crate::{program, read, root};

#[test]
fn the_stack_of_containers_is_whole() {
    let stack = read("compose.yaml");
    let Some(found) = check("compose", &stack) else {
        return;
    };
    assert_eq!(found, "");
    for (right, wrong, finding) in [
        ("mem_limit: 384m", "cpus: 1", "api has no limit of memory"),
        (
            "valkey/valkey:8.1-alpine",
            "valkey/valkey",
            "has no version",
        ),
        (
            "REDIS_URL:",
            "REDIS_URI:",
            "REDIS_URI is no setting of Balas",
        ),
        (
            "migrate: { condition",
            "migration: { condition",
            "migration, which is not there",
        ),
    ] {
        assert!(stack.contains(right), "{right}");
        let Some(found) = check("compose", &stack.replace(right, wrong)) else {
            return;
        };
        assert!(found.contains(finding), "{wrong} was taken: {found}");
    }
}

#[test]
fn the_image_is_made_of_what_there_is() {
    let (image, ignored) = (read("Dockerfile"), read(".dockerignore"));
    let stages: Vec<&str> = image
        .lines()
        .filter_map(|line| line.strip_prefix("FROM ")?.split(" AS ").nth(1))
        .collect();
    for line in image
        .lines()
        .filter(|line| line.starts_with("COPY --from="))
    {
        let stage = line["COPY --from=".len()..].split(' ').next().unwrap();
        assert!(stages.contains(&stage), "{line}");
    }
    for package in image
        .split(" -p ")
        .skip(1)
        .map(|rest| rest.split_whitespace().next().unwrap())
    {
        let folder = package.trim_start_matches("balas-");
        assert!(
            root().join(folder).join("Cargo.toml").is_file(),
            "{package}"
        );
    }
    for line in ignored.lines() {
        if let Some(kept) = line.strip_prefix('!') {
            assert!(
                root().join(kept).exists(),
                ".dockerignore keeps {kept}, which is not there"
            );
        }
    }
    // cargo wants every member, and the statements' cache.
    let members = read("Cargo.toml");
    let (_, members) = members.split_once("members = [").unwrap();
    for member in members
        .split(']')
        .next()
        .unwrap()
        .split('"')
        .skip(1)
        .step_by(2)
    {
        assert!(
            ignored.contains(&format!("!{member}\n")),
            ".dockerignore leaves out {member}"
        );
    }
    for needed in [".sqlx", "migrations", "Cargo.lock"] {
        assert!(ignored.contains(&format!("!{needed}\n")), "{needed}");
    }
    let version = members_version(&read("Cargo.toml"));
    assert!(
        image.contains(&format!("ARG RUST_VERSION={version}\n")),
        "not Rust {version}"
    );
    assert!(image.lines().any(|line| line.starts_with("USER 65532")));
    assert!(!image.contains(":latest"));
}

#[test]
fn every_program_that_is_started_is_built_and_in_the_image() {
    let image = read("Dockerfile");
    let copied: Vec<&str> = image
        .lines()
        .filter(|line| line.starts_with("COPY --from=build "))
        .flat_map(str::split_whitespace)
        .filter_map(|word| word.strip_prefix("/src/target/release/"))
        .collect();
    assert_eq!(copied, ["simulator", "balas-api", "balas-worker"]);
    for program in &copied {
        let folder = root().join(program.trim_start_matches("balas-"));
        let is_package = folder.join("src/main.rs").is_file()
            && std::fs::read_to_string(folder.join("Cargo.toml"))
                .unwrap()
                .contains(&format!("name = \"{program}\"\n"));
        let is_extra = root()
            .join(format!("loadtest/src/bin/{program}.rs"))
            .is_file();
        assert!(
            is_package || is_extra,
            "nothing is built of the name {program}"
        );
    }
    let mut started = 0;
    for file in [
        "Dockerfile",
        "compose.yaml",
        "k8s/base/api.yaml",
        "k8s/base/worker.yaml",
        "k8s/base/migrate.yaml",
        "k8s/overlays/local/servers.yaml",
    ] {
        let text = read(file);
        // A folder is what is copied to.
        for rest in text.split("/usr/local/bin/").skip(1) {
            let ends = |c: char| c.is_whitespace() || "\",]'`".contains(c);
            let name = rest.split(ends).next().unwrap();
            if !name.is_empty() {
                started += 1;
                assert!(
                    copied.contains(&name),
                    "{file} starts {name}, which is not in the image"
                );
            }
        }
    }
    assert!(started >= 10, "{started}");
}

/// What others have learnt about Dockerfiles.
#[test]
fn the_image_is_made_as_one_should() {
    let Some(hadolint) = program("TEST_HADOLINT") else {
        return;
    };
    let lint = |file: &std::path::Path| {
        let said = std::process::Command::new(&hadolint)
            .arg("--no-color")
            .arg(file)
            .output()
            .unwrap();
        (
            said.status.success(),
            String::from_utf8(said.stdout).unwrap(),
        )
    };
    assert_eq!(lint(&root().join("Dockerfile")), (true, String::new()));
    // It looks at all.
    let careless = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(careless.path(), "FROM debian:latest\nRUN cd /x\n").unwrap();
    let (passed, found) = lint(careless.path());
    assert!(!passed && found.contains("DL3007"), "{found}");
}

fn members_version(manifest: &str) -> String {
    let (_, rest) = manifest.split_once("rust-version = \"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn health_checks_name_commands_that_there_are() {
    for file in ["Dockerfile", "compose.yaml"] {
        let text = read(file);
        for (program, source) in [
            ("balas-api", "api/src/main.rs"),
            ("balas-worker", "worker/src/main.rs"),
        ] {
            let asked = text.contains(&format!("/usr/local/bin/{program}\", \"healthcheck\""));
            // The image's own check is the API's.
            assert!(
                asked || file == "Dockerfile" && program == "balas-worker",
                "{file}: {program}"
            );
            assert!(read(source).contains("    Healthcheck,\n"), "{source}");
        }
    }
}
