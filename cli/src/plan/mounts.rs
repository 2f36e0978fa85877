//! Mounts as people write them, and the workspace.

use std::path::{Component, Path, PathBuf};

use cellblock_bundle::{Mount, User};

use super::{Explained, PlanError, Sources, expand};

/// A mount that cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum MountError {
    /// Not of the form.
    #[error("{place}: `{text}` is no mount: {problem}")]
    Bad {
        /// A flag, or a line of the configuration.
        place: String,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The source is not there.
    #[error("{place}: {path} does not exist on the host", path = path.display())]
    Missing {
        /// A flag, or a line of the configuration.
        place: String,
        /// The source.
        path: PathBuf,
    },
    /// The working directory inside would not exist.
    #[error("the working directory `{0}` is not an absolute path")]
    Workdir(String),
}

/// Places inside that are the cell's own.
const OWN: &[&str] = &["/proc", "/sys", "/dev", "/etc/passwd", "/etc/group"];

impl Sources<'_> {
    /// The person's mounts: from the configuration, then from flags; the workspace is added by [`Self::workdir`].
    pub(super) fn mounts(&self, explained: &mut Vec<Explained>) -> Result<Vec<Mount>, PlanError> {
        let mut mounts: Vec<Mount> = Vec::new();
        let mut add = |mount: Mount, origin: String| {
            explained.push(Explained { key: "mount".into(), value: describe(&mount), origin });
            mounts.retain(|m| m.target() != mount.target());
            mounts.push(mount);
        };
        let base = self.project.map_or(self.facts.cwd.as_path(), |p| p.root.as_path());
        for section in self.sections()? {
            for text in &section.mounts {
                let place = self.at(text.referenced.line());
                add(self.bind(&text.value, &place, base)?, place);
            }
        }
        for text in &self.flags.volumes {
            add(self.bind(text, "--volume", &self.facts.cwd)?, "--volume".into());
        }
        for text in &self.flags.tmpfs {
            add(tmpfs(text)?, "--tmpfs".into());
        }
        Ok(mounts)
    }

    /// `SOURCE[:TARGET][:OPTIONS]`, podman's order. Relative sources count from `base`.
    fn bind(&self, text: &str, place: &str, base: &Path) -> Result<Mount, PlanError> {
        let bad = |problem: &str| MountError::Bad { place: place.into(), text: text.into(), problem: problem.into() };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts.as_slice() {
            [source] => (*source, None, ""),
            [source, second] if second.starts_with(['/', '~', '$']) => (*source, Some(*second), ""),
            [source, options] => (*source, None, *options),
            [source, target, options] => (*source, Some(*target), *options),
            _ => return Err(bad("expected SOURCE[:TARGET][:ro]").into()),
        };
        if source.is_empty() {
            return Err(bad("the source is empty").into());
        }
        let mut writable = true;
        for option in options.split(',').filter(|o| !o.is_empty()) {
            match option {
                "ro" => writable = false,
                "rw" => writable = true,
                "z" | "Z" => return Err(bad("SELinux labels (`z`, `Z`) are not supported by this version").into()),
                other => return Err(bad(&format!("unknown option `{other}` (known: ro, rw)")).into()),
            }
        }
        let source = base.join(expand(source, self.facts)?);
        let source =
            source.canonicalize().map_err(|_| MountError::Missing { place: place.into(), path: source.clone() })?;
        let target = match target {
            Some(target) => PathBuf::from(expand(target, self.facts)?),
            None => source.clone(),
        };
        let target = target_path(&target).map_err(|problem| bad(problem))?;
        text_only(&source).and_then(|()| text_only(&target)).map_err(|problem| bad(problem))?;
        Ok(Mount::Bind { source, target, writable })
    }

    /// The working directory inside; the project is mounted where it stands outside, before everything else.
    pub(super) fn workdir(
        &self,
        mounts: &mut Vec<Mount>,
        explained: &mut Vec<Explained>,
        user: &User,
    ) -> Result<PathBuf, PlanError> {
        let mut default = if user.uid == 0 || self.project.is_some() { PathBuf::from("/") } else { user.home.clone() };
        if let Some(project) = self.project {
            let root = &project.root;
            text_only(root).map_err(|problem| MountError::Bad {
                place: "the project".into(),
                text: root.display().to_string(),
                problem: problem.into(),
            })?;
            let workspace = Mount::Bind { source: root.clone(), target: root.clone(), writable: true };
            explained.push(Explained { key: "mount".into(), value: describe(&workspace), origin: "project".into() });
            if !mounts.iter().any(|m| m.target() == root) {
                mounts.insert(0, workspace);
            }
            default = if self.facts.cwd.starts_with(root) { self.facts.cwd.clone() } else { root.clone() };
        }
        match &self.flags.workdir {
            Some(text) if !text.starts_with('/') => Err(MountError::Workdir(text.clone()).into()),
            Some(text) => {
                explained.push(Explained { key: "workdir".into(), value: text.clone(), origin: "--workdir".into() });
                Ok(PathBuf::from(text))
            }
            None => {
                explained.push(Explained {
                    key: "workdir".into(),
                    value: default.display().to_string(),
                    origin: "default".into(),
                });
                Ok(default)
            }
        }
    }
}

/// `TARGET[:size=BYTES,mode=OCTAL]`.
fn tmpfs(text: &str) -> Result<Mount, PlanError> {
    let bad = |problem: &str| MountError::Bad { place: "--tmpfs".into(), text: text.into(), problem: problem.into() };
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut size = None;
    let mut mode = 0o1777;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => size = Some(super::bytes(value, "--tmpfs")?),
            Some(("mode", value)) => {
                mode = u32::from_str_radix(value, 8)
                    .ok()
                    .filter(|m| *m <= 0o7777)
                    .ok_or_else(|| bad("the mode is no octal number"))?;
            }
            _ => return Err(bad("unknown option (known: size=, mode=)").into()),
        }
    }
    Ok(Mount::Tmpfs { target: target_path(Path::new(target)).map_err(bad)?, size, mode })
}

/// An absolute path inside, without `.` and `..`, that is not the cell's own.
fn target_path(target: &Path) -> Result<PathBuf, &'static str> {
    if !target.is_absolute() {
        return Err("the target is not an absolute path");
    }
    if target.components().any(|c| c == Component::ParentDir) {
        return Err("the target leads upwards (`..`)");
    }
    let clean: PathBuf = target.components().filter(|c| *c != Component::CurDir).collect();
    if clean == Path::new("/") {
        return Err("the target is the root itself; that is what --image is for");
    }
    if OWN.iter().any(|own| clean.starts_with(own)) {
        return Err("the target belongs to the cell itself");
    }
    Ok(clean)
}

/// An OCI bundle is JSON, so a path in it has to be text.
fn text_only(path: &Path) -> Result<(), &'static str> {
    path.to_str().map(drop).ok_or("the path is not UTF-8, which OCI bundles cannot express")
}

/// A mount in words.
pub(crate) fn describe(mount: &Mount) -> String {
    match mount {
        Mount::Bind { source, target, writable } => {
            let access = if *writable { "rw" } else { "ro" };
            if source == target {
                format!("{} ({access})", target.display())
            } else {
                format!("{} -> {} ({access})", source.display(), target.display())
            }
        }
        Mount::Tmpfs { target, size, .. } => match size {
            Some(size) => format!("tmpfs -> {} (at most {size} bytes)", target.display()),
            None => format!("tmpfs -> {}", target.display()),
        },
    }
}
