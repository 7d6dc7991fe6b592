//! Manifests that a cluster would take, and what they must not forget.

use std::process::Command;

use crate::{program, root};

/// Says what is wrong with a file, by `manifests.py`; nothing where these tests are not run.
pub(crate) fn check(kind: &str, text: &str) -> Option<String> {
    let packages = program("TEST_KUBERNETES_VALIDATE")?;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, text).unwrap();
    let said = Command::new("python3")
        .arg(root().join("shared/tests/deploy/manifests.py"))
        .arg(kind)
        .arg(file.path())
        .arg(root().join(".env.example"))
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let found = String::from_utf8(said.stdout).unwrap();
    let failure = String::from_utf8_lossy(&said.stderr);
    assert!(failure.is_empty(), "{failure}");
    assert_eq!(said.status.success(), found.trim().is_empty());
    Some(found.trim().to_owned())
}

/// Every object of a folder, as `kubectl apply -k` would send them.
fn rendered(folder: &str) -> Option<String> {
    let kubectl = program("TEST_KUBECTL")?;
    let said = Command::new(kubectl)
        .arg("kustomize")
        .arg(root().join(folder))
        .output()
        .unwrap();
    assert!(
        said.status.success(),
        "{folder}: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    Some(String::from_utf8(said.stdout).unwrap())
}

#[test]
fn manifests_are_what_kubernetes_takes() {
    for (folder, most) in [
        ("k8s/base", 20),
        ("k8s/overlays/local", 40),
        ("k8s/overlays/production", 50),
    ] {
        let Some(objects) = rendered(folder) else {
            return;
        };
        let count = objects.matches("\nkind: ").count();
        assert!((10..most).contains(&count), "{folder}: {count}");
        let Some(found) = check("kubernetes", &objects) else {
            return;
        };
        assert_eq!(found, "", "{folder}");
    }
}

#[test]
fn what_is_wrong_with_manifests_is_found() {
    let Some(objects) = rendered("k8s/overlays/production") else {
        return;
    };
    for (right, wrong, finding) in [
        (
            "terminationGracePeriodSeconds: 75",
            "terminationGracePeriodSeconds: 64",
            "Deployment/balas-worker: terminationGracePeriodSeconds is 64, and draining may take 65",
        ),
        (
            "readOnlyRootFilesystem: true",
            "readOnlyRootFilesystem: false",
            "is not restricted",
        ),
        (
            "WORKER_CONCURRENCY:",
            "WORKER_CONCURENCY:",
            "WORKER_CONCURENCY is no setting of Balas",
        ),
        (
            "secretName: balas-openrouter",
            "secretName: balas-closedrouter",
            "there is no secret balas-closedrouter",
        ),
        ("periodSeconds: 3\n", "periodSecond: 3\n", "periodSecond"),
        (
            "  - interval: 15s\n    path: /metrics\n    port: health",
            "  - interval: 15s\n    path: /metrics\n    port: healthy",
            "there is no port healthy",
        ),
    ] {
        assert!(objects.contains(right), "{right}");
        let broken = objects.replace(right, wrong);
        let Some(found) = check("kubernetes", &broken) else {
            return;
        };
        assert!(found.contains(finding), "{wrong} was taken: {found}");
    }
}
