//! Where the project stands inside, what is the command's home, and where logs go.
//!
//! The first two have a place of their own: the project that of the host, so that what programs remember of paths holds on both sides, and the home an
//! empty folder of the cell's. Somebody may want another one.

use super::error::PathProblem;
use super::expand::{config_path, typed_path};
use super::files::Kind;
use super::mounts::{Placed, check_target};
use super::steady::Steady;
use super::*;
use crate::args::values::HomeSpec;

/// The command's home, where it is not the cell's own.
#[derive(Debug, Default)]
pub(super) struct Home {
    /// Where the cell's own home is all the same: what cellblock makes at home stays there.
    pub(super) own: Option<PathBuf>,
    /// The folder of the host that is mounted for it, unless it is the project's.
    pub(super) mount: Option<Placed>,
    /// Whether it has a configuration of git's, which then counts, and not the one that is made for the cell.
    pub(super) has_git_config: bool,
    /// Whether it is the project's folder.
    pub(super) workspace: bool,
}

impl Inputs<'_> {
    /// The project with the place where it stands inside, if that is to be another than its own; and what there is to say.
    pub(super) fn moved_project(
        self,
        layers: Layers<'_>,
    ) -> Result<Option<(ProjectFacts, Origin, Vec<String>)>, ResolveError> {
        let flag = self.typed.cell.project_path.clone().map(|path| (path, "--project-path"));
        let typed = flag.is_some();
        let Some(said) = layers.find(Wanted { flag, variable: None, key: |s| &s.project_path })? else {
            return Ok(None);
        };
        let Some(project) = self.project else {
            let text = said.value.display().to_string();
            return if typed { Err(ResolveError::NoProject { origin: said.origin, text }) } else { Ok(None) };
        };
        if said.value == project.root {
            return Ok(None);
        }
        check_target(&said.value, &said.origin)?;
        let fits = self.pointers(project);
        let notes = match fits {
            Err(why) => {
                return Err(ResolveError::ProjectPath {
                    origin: said.origin,
                    root: project.root.clone(),
                    why: Box::new(why),
                });
            }
            Ok(false) => Vec::new(),
            Ok(true) => vec![format!(
                "the worktree stands at {} inside; its repository still names {}: `git worktree list` shows it as missing there, `git worktree \
                 repair` and `move` do not work",
                said.value.display(),
                project.root.display()
            )],
        };
        Ok(Some((ProjectFacts { elsewhere: Some(said.value), ..project.clone() }, said.origin, notes)))
    }

    /// Whether git's files name the project's path in a way that matters little (a linked worktree's), or why git could not work elsewhere.
    fn pointers(self, project: &ProjectFacts) -> Result<bool, PathProblem> {
        let Some(git) = &project.git else { return Ok(false) };
        let dot_git = project.root.join(".git");
        let names_it = match self.files.kind(&dot_git) {
            Some(Kind::Link) => return Err(PathProblem::Link),
            Some(Kind::File) => {
                let text = self.files.text(&dot_git).unwrap_or_default();
                let pointer = Path::new(text.strip_prefix("gitdir:").unwrap_or_default().trim());
                let inside = git.git_dir.starts_with(&project.root);
                if pointer.is_absolute() == inside {
                    return Err(PathProblem::Pointer(pointer.to_owned()));
                }
                git.linked
            }
            Some(Kind::Folder) | None => false,
        };
        let config = git_config::repository(self.files, self.host, git);
        let named = config.entries.iter().rev().find(|entry| entry.is("core", "worktree"));
        match named.map(|entry| Path::new(&entry.value)) {
            Some(path) if path.is_absolute() || !git.git_dir.starts_with(&project.root) => {
                Err(PathProblem::WorkTree(path.to_owned()))
            }
            _ => Ok(names_it),
        }
    }

    /// The command's home; `user` is told.
    pub(super) fn home(self, layers: Layers<'_>, user: &mut User, explain: &mut Explain) -> Result<Home, ResolveError> {
        let flag = self.typed.cell.home.clone().map(|home| (home, "--home"));
        let said = layers.pick(Wanted { flag, variable: None, key: |s| &s.home }, HomeSpec::Private)?;
        let origin = said.origin;
        let (at, source, mount) = match (&said.value, self.project) {
            (HomeSpec::Private, _) => {
                explain.add("home", "private", &origin);
                return Ok(Home::default());
            }
            (HomeSpec::Workspace, None) => {
                return Err(ResolveError::NoProject { origin, text: said.value.to_string() });
            }
            (HomeSpec::Workspace, Some(project)) => (project.at().to_owned(), project.root.clone(), None),
            (HomeSpec::Folder(text), project) => {
                let (path, source) = self.home_folder(text, &origin)?;
                match project.filter(|project| project.root == source) {
                    Some(project) => (project.at().to_owned(), source, None),
                    None => {
                        let mount = Mount::Bind { source: source.clone(), target: path.clone(), writable: true };
                        (path, source, Some(Placed { mount, origin: origin.clone() }))
                    }
                }
            }
        };
        explain.add("home", &at.to_string_lossy(), &origin);
        let there = |name: &str| self.files.is_there(&source.join(name));
        Ok(Home {
            own: Some(std::mem::replace(&mut user.home, at)),
            workspace: mount.is_none(),
            mount,
            has_git_config: there(".gitconfig") || there(".config/git/config"),
        })
    }

    /// A folder of the host that somebody names as a home: as it is called, and where that leads. What is no project is no home.
    fn home_folder(self, text: &str, origin: &Origin) -> Result<(PathBuf, PathBuf), ResolveError> {
        let configured = matches!(origin, Origin::Config { .. } | Origin::Section { .. });
        let expand = if configured { config_path } else { typed_path };
        let expanded = expand(text, self.host).map_err(|error| ResolveError::Expand {
            origin: origin.clone(),
            text: text.to_owned(),
            error,
        })?;
        let path = match (configured, self.project) {
            (true, Some(project)) => project.root.join(expanded),
            (true, None) if Path::new(&expanded).is_relative() => {
                return Err(ResolveError::NoProject { origin: origin.clone(), text: text.to_owned() });
            }
            _ => self.host.cwd.join(expanded),
        };
        let failed = |source| ResolveError::Source { origin: origin.clone(), path: path.clone(), source };
        let seen = self.files.look(&path).map_err(failed)?;
        if !seen.is_dir {
            return Err(failed(std::io::ErrorKind::NotADirectory.into()));
        }
        if seen.canonical.to_str().is_none() {
            return Err(ResolveError::NotUtf8 { origin: origin.clone(), path: seen.canonical });
        }
        self.steady().check(&path, &seen.canonical, origin)?;
        if let Some(refusal) = self.refused(&seen.canonical) {
            return Err(ResolveError::RefusedFolder {
                what: "home",
                origin: origin.clone(),
                refusal: Box::new(refusal),
            });
        }
        let plain = path.components().all(|part| part != std::path::Component::ParentDir);
        Ok((if plain { path.components().collect() } else { seen.canonical.clone() }, seen.canonical))
    }

    /// The folder for logs, if there is one of its own. `placed` is everything that is mounted, `shared` what of the agent's is.
    pub(super) fn log_dir(
        self,
        layers: Layers<'_>,
        placed: &[Placed],
        shared: &[PathBuf],
        explain: &mut Explain,
    ) -> Result<Option<PathBuf>, ResolveError> {
        let flag = self.typed.cell.log_dir.clone().map(|dir| (dir, "--log-dir"));
        let Some(said) = layers.find(Wanted { flag, variable: None, key: |s| &s.log_dir })? else { return Ok(None) };
        let Sourced { value: text, origin } = said;
        let path = self.folder(&text, &origin)?;
        apart(&path, placed, shared, &origin, "it could change what its logs say")?;
        explain.add("log_dir", &path.to_string_lossy(), &origin);
        Ok(Some(path))
    }

    /// The folder whose files lie over those of the root, if there is one; and covers for what of it is secret.
    pub(super) fn overlay(
        self,
        asked: Asked<'_>,
        placed: &mut Vec<Placed>,
        shared: &[PathBuf],
        explain: &mut Explain,
    ) -> Result<Option<PathBuf>, ResolveError> {
        let flag = self.typed.cell.overlay.clone().map(|dir| (dir, "--overlay"));
        let said = asked.layers.find(Wanted { flag, variable: None, key: |s| &s.overlay })?;
        let Some(Sourced { value: text, origin }) = said else { return Ok(None) };
        let path = self.folder(&text, &origin)?;
        if let Some(refusal) = self.refused(&path) {
            return Err(ResolveError::RefusedFolder { what: "overlay", origin, refusal: Box::new(refusal) });
        }
        apart(&path, placed, shared, &origin, "what lies below a root must not change while it is mounted")?;
        for name in OWN {
            let inside = path.join(name);
            if matches!(self.files.kind(&inside), Some(Kind::File | Kind::Link)) {
                return Err(ResolveError::OverlayFolder { origin, path: inside });
            }
        }
        explain.add("overlay", &path.to_string_lossy(), &origin);
        // As if it were mounted at `/`: what is mounted hides it there, as it hides what is mounted.
        let mount = Mount::Bind { source: path.clone(), target: "/".into(), writable: false };
        let stand_in = Placed { mount, origin };
        placed.insert(0, stand_in.clone());
        let notes = secret_paths::cover(asked, placed);
        placed.retain(|one| *one != stand_in);
        notes.map(|_| Some(path))
    }

    /// A folder that must be there, with the links to it followed. In the configuration it does not depend on where one stands.
    fn folder(self, text: &str, origin: &Origin) -> Result<PathBuf, ResolveError> {
        let typed = matches!(origin, Origin::Flag(_));
        let expanded = if typed { typed_path(text, self.host) } else { config_path(text, self.host) };
        let path =
            expanded.map_err(|error| ResolveError::Expand { origin: origin.clone(), text: text.to_owned(), error })?;
        if !typed && Path::new(&path).is_relative() {
            return Err(ResolveError::RelativeFilter { origin: origin.clone(), text: text.to_owned() });
        }
        let path = self.host.cwd.join(path);
        let failed = |source| ResolveError::Source { origin: origin.clone(), path: path.clone(), source };
        let seen = self.files.look(&path).map_err(failed)?;
        if seen.canonical.to_str().is_none() {
            return Err(ResolveError::NotUtf8 { origin: origin.clone(), path: seen.canonical });
        }
        self.steady().check(&path, &seen.canonical, origin)?;
        if seen.is_dir { Ok(seen.canonical) } else { Err(failed(std::io::ErrorKind::NotADirectory.into())) }
    }

    fn steady(&self) -> Steady<'_> {
        Steady { files: self.files, host: self.host, project: self.project }
    }
}

/// Folders at the top in which cellblock makes what a cell needs: they are folders, whatever lies below.
const OWN: &[&str] = &["dev", "etc", "home", "proc", "run", "sys", "tmp", "usr", "var"];

/// Whether `path` is out of the cell's reach.
fn apart(
    path: &Path,
    placed: &[Placed],
    shared: &[PathBuf],
    origin: &Origin,
    why: &'static str,
) -> Result<(), ResolveError> {
    let mounted = placed.iter().filter_map(|placed| placed.mount.writable_source());
    let mut writable = mounted.chain(shared.iter().map(PathBuf::as_path));
    match writable.find(|source| path.starts_with(source)) {
        Some(within) => {
            Err(ResolveError::Within { origin: origin.clone(), path: path.into(), within: within.into(), why })
        }
        None => Ok(()),
    }
}
