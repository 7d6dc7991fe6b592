//! Secrets of a local run: those of the environment, else generated ones kept in `.local/secrets/`.

use std::fs;

use uuid::Uuid;

use crate::{
    files::{make_dir, write_private},
    project::Project,
};

/// What `up` hands to the processes and `token` signs with.
#[derive(Debug, Clone)]
pub(crate) struct Secrets {
    /// `JWT_SECRET`.
    pub(crate) jwt: String,
    /// `INTERNAL_SERVICE_KEY`.
    pub(crate) service_key: String,
    /// The user whose token `up` prints; kept, so that a second `up` shows the same conversations.
    pub(crate) user: Uuid,
}

impl Secrets {
    /// Reads them, making those that are neither set nor kept.
    pub(crate) fn load(project: &Project) -> anyhow::Result<Self> {
        let user = kept(project, "user", || Uuid::new_v4().to_string())?;
        let resolve = |variable: &str, name: &str| match project.env.get(variable) {
            Some(value) => Ok(value.to_owned()),
            None => kept(project, name, random),
        };
        Ok(Self {
            jwt: resolve("JWT_SECRET", "jwt")?,
            service_key: resolve("INTERNAL_SERVICE_KEY", "service-key")?,
            user: user.parse().unwrap_or_else(|_| Uuid::new_v4()),
        })
    }
}

/// 244 random bits.
fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn kept(project: &Project, name: &str, make: impl FnOnce() -> String) -> anyhow::Result<String> {
    let dir = project.local.join("secrets");
    make_dir(&dir, 0o700)?;
    let file = dir.join(name);
    if let Ok(text) = fs::read_to_string(&file)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    let value = make();
    write_private(&file, &value)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;
    use crate::{env::Env, interrupt::Interrupt};

    fn project(root: &Path, env: Env) -> Project {
        Project {
            root: root.to_path_buf(),
            local: root.join(".local"),
            env,
            interrupt: Interrupt::default(),
        }
    }

    #[test]
    fn generated_secrets_are_kept_and_private() {
        let root = tempfile::tempdir().unwrap();
        let project = project(root.path(), Env::default());
        let first = Secrets::load(&project).unwrap();
        let second = Secrets::load(&project).unwrap();
        assert_eq!(first.jwt.len(), 64);
        assert_ne!(first.jwt, first.service_key);
        assert_eq!(first.jwt, second.jwt);
        assert_eq!(first.user, second.user);
        let mode = fs::metadata(root.path().join(".local/secrets/jwt"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_environment_goes_before_what_is_kept() {
        let root = tempfile::tempdir().unwrap();
        Secrets::load(&project(root.path(), Env::default())).unwrap();
        let env = Env::from([("JWT_SECRET", "from-outside")]);
        let secrets = Secrets::load(&project(root.path(), env)).unwrap();
        assert_eq!(secrets.jwt, "from-outside");
        assert_eq!(secrets.service_key.len(), 64);
    }
}
