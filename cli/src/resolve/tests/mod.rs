//! Command lines and configurations, and the cells they mean, without a container.

mod brokers;
mod cells;
mod environment;
mod git;
mod mounts;
mod secret_paths;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::ControlFlow;

use clap::Parser;

use super::files::{Kind, Seen};
use super::*;
use crate::args::CellFlags;
use crate::project::{Git, Head};

/// A small world: a person called Ada on a usual machine, in `~/web` on the branch `main`.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) host: HostFacts,
    pub(super) project: Option<ProjectFacts>,
    pub(super) files: Table,
    pub(super) config: String,
    pub(super) image: ImageFacts,
}

/// Files as a table: path, what it leads to, whether that is a folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) seen: BTreeMap<PathBuf, Seen>,
    pub(super) texts: BTreeMap<PathBuf, String>,
}

impl Table {
    pub(super) fn dir(&mut self, path: &str) {
        self.seen.insert(path.into(), Seen { canonical: path.into(), is_dir: true });
    }

    pub(super) fn file(&mut self, path: &str) {
        self.seen.insert(path.into(), Seen { canonical: path.into(), is_dir: false });
    }

    pub(super) fn link(&mut self, path: &str, to: &str, is_dir: bool) {
        self.seen.insert(path.into(), Seen { canonical: to.into(), is_dir });
    }
}

impl Files for Table {
    fn look(&self, path: &Path) -> io::Result<Seen> {
        // `./` and trailing slashes are the file system's business, not the table's.
        let clean: PathBuf = path.components().collect();
        self.seen.get(&clean).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        let seen = self.seen.get(path)?;
        Some(match seen {
            Seen { canonical, .. } if canonical != path => Kind::Link,
            Seen { is_dir: true, .. } => Kind::Folder,
            Seen { .. } => Kind::File,
        })
    }

    fn names(&self, path: &Path, each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
        let below = self.seen.keys().filter(|known| known.parent() == Some(path));
        let _ = below.filter_map(|known| known.file_name()).try_for_each(|name| each(name.as_encoded_bytes()));
        Ok(())
    }

    fn text(&self, path: &Path) -> Option<String> {
        self.texts.get(path).cloned()
    }

    fn is_there(&self, path: &Path) -> bool {
        self.look(path).is_ok()
    }

    fn items(&self, path: &Path) -> io::Result<Vec<files::Item>> {
        let below = self.seen.iter().filter(|(known, _)| known.parent() == Some(path));
        Ok(below
            .map(|(known, seen)| files::Item {
                name: known.file_name().unwrap_or_default().to_owned(),
                is_dir: seen.is_dir && seen.canonical == *known,
            })
            .collect())
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        self.texts.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn head(&self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        self.read(path).map(|text| text.bytes().take(most).collect())
    }

    fn executable(&self, path: &Path) -> bool {
        self.look(path).is_ok_and(|seen| !seen.is_dir)
    }
}

#[derive(Debug, Parser)]
struct Run {
    #[command(flatten)]
    cell: CellFlags,
    #[command(flatten)]
    start: StartFlags,
    #[arg(trailing_var_arg = true)]
    words: Vec<String>,
}

pub(super) fn typed(line: &str) -> Typed {
    let argv: Vec<OsString> = std::iter::once("run").chain(line.split_whitespace()).map(OsString::from).collect();
    let run = Run::try_parse_from(&argv).unwrap_or_else(|e| panic!("{e}"));
    Typed { cell: run.cell, start: run.start, words: Words::from_trailing(&argv, run.words) }
}

impl World {
    pub(super) fn new() -> Self {
        let env = [
            ("HOME", "/home/ada"),
            ("PATH", "/home/ada/bin:/usr/local/bin:/usr/bin:.:/bin:/snap/bin:/opt/gone/bin"),
            ("TERM", "tmux-256color"),
            ("LANG", "en_GB.UTF-8"),
            ("LC_TIME", "C"),
            ("EDITOR", "vi"),
            ("SSL_CERT_FILE", "/etc/ssl/ada.pem"),
            ("XDG_RUNTIME_DIR", "/run/user/1000"),
            ("SSH_AUTH_SOCK", "/run/user/1000/agent"),
            ("GITHUB_TOKEN", "ghp_secret"),
            ("DATABASE_URL", "postgres://localhost"),
        ];
        let host = HostFacts {
            uid: 1000,
            gid: 1000,
            user: "ada".into(),
            group: "ada".into(),
            home: "/home/ada".into(),
            homes: vec!["/home/ada".into()],
            shell: "/usr/bin/zsh".into(),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            cwd: "/home/ada/web/src".into(),
            stdin_terminal: true,
            stdout_terminal: true,
            subuids: vec![(100_000, 65_536)],
            subgids: vec![(100_000, 65_536)],
            newuidmap: true,
            real_root: false,
            own: vec!["/home/ada/.local/share/cellblock".into(), "/home/ada/.config/cellblock".into()],
            program: Some("/usr/local/bin/cellblock".into()),
            runtime: "/run/user/1000/cellblock".into(),
        };
        let mut files = Table::default();
        for dir in [
            "/home/ada/web",
            "/home/ada/web/src",
            "/home/ada/libs",
            "/home/ada/work/shared-libs",
            "/srv/data",
            "/usr/bin",
            "/usr/local/bin",
        ] {
            files.dir(dir);
        }
        files.dir("/home/ada/bin");
        files.dir("/snap/bin");
        files.file("/usr/bin/zsh");
        files.file("/home/ada/.npmrc");
        files.link("/bin", "/usr/bin", true);
        let project = ProjectFacts {
            root: "/home/ada/web".into(),
            elsewhere: None,
            canonical_root: "/home/ada/web".into(),
            cwd: "/home/ada/web/src".into(),
            id: crate::project::id(Path::new("/home/ada/web")),
            name: "web".into(),
            head: Head::Branch("main".into()),
            git: Some(Git {
                git_dir: "/home/ada/web/.git".into(),
                common_dir: "/home/ada/web/.git".into(),
                linked: false,
                confirmed: true,
            }),
        };
        Self { host, project: Some(project), files, config: String::new(), image: Self::alpine() }
    }

    pub(super) fn alpine() -> ImageFacts {
        ImageFacts { name: "alpine:3.20.3".into(), visible: None }
    }

    pub(super) fn host_image() -> ImageFacts {
        ImageFacts { name: "host".into(), visible: Some(["/usr", "/bin", "/opt"].map(PathBuf::from).into()) }
    }

    pub(super) fn config(mut self, text: &str) -> Self {
        text.clone_into(&mut self.config);
        self
    }

    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.host.env.insert(name.into(), value.into());
        self
    }

    /// Both steps, as the commands take them.
    pub(super) fn try_run(&self, line: &str) -> Result<Resolved, ResolveError> {
        let config = crate::config::parse(Path::new("/c.yaml"), &self.config).unwrap_or_else(|e| panic!("{e}"));
        let typed = typed(line);
        let agent = match &typed.words {
            Words::Agent { name, .. } => crate::agents::find(name, &config).unwrap_or_else(|e| panic!("{e}")),
            _ => None,
        };
        let inputs = Inputs {
            typed: &typed,
            config: &config,
            agent: agent.as_ref(),
            project: self.project.as_ref().filter(|_| !typed.cell.no_project),
            host: &self.host,
            files: &self.files,
        };
        let wanted = image(inputs)?;
        resolve(inputs, &wanted, &self.image)
    }

    pub(super) fn run(&self, line: &str) -> Resolved {
        self.try_run(line).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    /// An error and its hint.
    pub(super) fn told(&self, line: &str) -> String {
        let error = self.try_run(line).expect_err(line);
        match error.hint() {
            Some(hint) => format!("{error}\n  hint: {hint}"),
            None => error.to_string(),
        }
    }
}

impl Resolved {
    /// `value (origin)` of one explained key.
    pub(super) fn why(&self, key: &str) -> String {
        let found: Vec<&Explained> = self.explain.iter().filter(|explained| explained.key == key).collect();
        match found[..] {
            [one] => format!("{} ({})", one.value, one.origin),
            _ => panic!("{key} is explained {} times", found.len()),
        }
    }
}
