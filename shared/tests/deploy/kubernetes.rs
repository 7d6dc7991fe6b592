//! Manifests that a cluster would take, and what they must not forget.

use std::path::Path;
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

/// What `render.py` says of a folder, and whether it was well. Our own rendering is the one that is checked, so that
/// a machine without kubectl checks as much; another one may be given to compare it with.
fn render(folder: &Path, other: Option<&Path>) -> Option<(bool, String)> {
    let packages = program("TEST_KUBERNETES_VALIDATE")?;
    let said = Command::new("python3")
        .arg(root().join("shared/tests/deploy/render.py"))
        .arg(folder)
        .args(other)
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let text = [said.stdout, said.stderr].concat();
    Some((said.status.success(), String::from_utf8(text).unwrap()))
}

/// Every object of a folder, as `kubectl apply -k` would send them.
fn rendered(folder: &str) -> Option<String> {
    let (well, text) = render(&root().join(folder), None)?;
    assert!(well, "{folder}: {text}");
    Some(text)
}

/// The folders that are rendered, and more objects than they have.
const FOLDERS: [(&str, usize); 3] = [
    ("k8s/base", 20),
    ("k8s/overlays/local", 40),
    ("k8s/overlays/production", 50),
];

#[test]
fn our_rendering_is_that_of_kubectl() {
    let Some(kubectl) = program("TEST_KUBECTL") else {
        return;
    };
    for (folder, _) in FOLDERS {
        let said = Command::new(&kubectl)
            .arg("kustomize")
            .arg(root().join(folder))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{folder}: {error}");
        let theirs = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(theirs.path(), &said.stdout).unwrap();
        let Some(compared) = render(&root().join(folder), Some(theirs.path())) else {
            return;
        };
        assert_eq!(compared, (true, String::new()), "{folder}");
        let other = String::from_utf8(said.stdout).unwrap();
        let other = other.replacen("name: balas-worker", "name: balas-walker", 1);
        std::fs::write(theirs.path(), other).unwrap();
        let (well, found) = render(&root().join(folder), Some(theirs.path())).unwrap();
        assert!(!well && found.contains("balas-walker"), "{folder}: {found}");
    }
}

/// What of kustomize it does not know it must refuse, not leave out.
#[test]
fn what_cannot_be_rendered_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: a }\ndata: { x: y }\n";
    std::fs::write(folder.path().join("a.yaml"), config).unwrap();
    let patch = "patches: [{ target: { kind: Secret }, patch: '[{ op: remove, path: /data }]' }]";
    for (more, finding) in [
        ("namePrefix: x-", "knows no namePrefix"),
        (
            "configMapGenerator: [{ name: b, literals: [x=y] }]",
            "a name with a hash",
        ),
        (patch, "nobody is {'kind': 'Secret'}"),
        ("resources: [a.yaml, a.yaml]", "more than one"),
    ] {
        let resources = if more.starts_with("resources") {
            ""
        } else {
            "resources: [a.yaml]\n"
        };
        let text = format!("{resources}{more}\n");
        std::fs::write(folder.path().join("kustomization.yaml"), text).unwrap();
        let Some((well, found)) = render(folder.path(), None) else {
            return;
        };
        assert!(!well && found.contains(finding), "{more}: {found}");
    }
}

#[test]
fn manifests_are_what_kubernetes_takes() {
    for (folder, most) in FOLDERS {
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
        (
            "failureThreshold: 6",
            "failureThresholds: 6",
            "spec.fallback: Additional properties",
        ),
        (
            "poolMode: transaction",
            "poolMode: transactions",
            "spec.pgbouncer.poolMode",
        ),
        (
            "threshold: '500'",
            "threshold: 500",
            "spec.triggers.0.metadata.threshold",
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
