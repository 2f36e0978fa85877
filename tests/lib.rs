//! A world of its own for each end-to-end test: a home, a project, the `cellblock` command, and nothing shared with other tests.

pub mod internet;
pub mod tracer;

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The longest any command of a test may take: a minute, or `CELLBLOCK_TEST_PATIENCE` seconds on an emulated machine.
fn patience() -> Duration {
    let told = std::env::var("CELLBLOCK_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(told.unwrap_or(60))
}

/// A fresh home with a git project in it.
#[derive(Debug)]
pub struct World {
    root: PathBuf,
}

impl World {
    /// Makes one. Its folders let other users pass through: under root the cell's ids are others than root's.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = std::env::var_os("CELLBLOCK_TEST_TMP").map_or_else(std::env::temp_dir, PathBuf::from);
        let root = base.join(format!("cb{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let world = Self { root };
        for dir in ["", "home", "run", "home/demo", "home/demo/.git"] {
            std::fs::create_dir(world.root.join(dir)).expect("a folder of the world");
        }
        for dir in ["", "home", "run"] {
            std::fs::set_permissions(world.root.join(dir), PermissionsExt::from_mode(0o711)).expect("chmod");
        }
        world.write("home/demo/.git/HEAD", "ref: refs/heads/main\n");
        world.write("home/demo/file", "content\n");
        world
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside)
    }

    /// The project's folder.
    #[must_use]
    pub fn project(&self) -> PathBuf {
        self.path("home/demo")
    }

    /// Writes a file, with the folders it needs.
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, text).expect("a file of the world");
    }

    /// Writes the configuration.
    pub fn configure(&self, yaml: &str) {
        self.write("home/.config/cellblock/config.yaml", yaml);
    }

    /// `cellblock` with the words of `line` (split at blanks; `'…'` keeps them), in the project.
    #[must_use]
    pub fn cellblock(&self, line: &str) -> Call {
        self.call(&cellblock(), &words(line))
    }

    /// Any program, in the project, with this world's environment.
    #[must_use]
    pub fn call<S: AsRef<OsStr>>(&self, program: &Path, args: &[S]) -> Call {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.project()).env_clear().stdin(Stdio::null());
        command.envs(self.environment());
        Call { command, input: None }
    }

    /// This world's environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |inside: &str| self.path(inside).display().to_string();
        let mut env = vec![
            ("HOME", path("home")),
            ("TERM", "xterm".into()),
            ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".into()),
        ];
        env.push(("XDG_RUNTIME_DIR", path("run")));
        env.push(("XDG_DATA_HOME", path("home/.local/share")));
        env.push(("XDG_STATE_HOME", path("home/.local/state")));
        // The way to the person's systemd, which XDG_RUNTIME_DIR leads to no longer.
        env.extend(std::env::var("DBUS_SESSION_BUS_ADDRESS").ok().map(|address| ("DBUS_SESSION_BUS_ADDRESS", address)));
        env
    }

    /// The command as a shell would need it written, for tests through a terminal.
    #[must_use]
    pub fn shell_line(&self, line: &str) -> String {
        let env: String = self.environment().iter().map(|(k, v)| format!("{k}={v} ")).collect();
        format!("cd {} && env -i {env} {} {line}", self.project().display(), cellblock().display())
    }

    /// Loads the real Alpine root file system as `alpine`.
    pub fn load_alpine(&self) {
        let file = alpine();
        self.call(&cellblock(), &["image", "load", file.to_str().expect("utf-8"), "--name", "alpine"]).ok();
    }

    /// Whether this user can make cgroups here: root can.
    ///
    /// # Panics
    /// If root cannot.
    #[must_use]
    pub fn can_limit(&self) -> bool {
        let can = self.cellblock("run --pids 50 -- true").run().code() == Some(0);
        assert!(can || !is_root(), "root can make cgroups");
        can
    }

    /// What is left of cells: must be nothing after each test's cells have ended, once the process that removes it has had its time.
    #[must_use]
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let end = Instant::now() + patience() / 10;
        loop {
            let left: Vec<_> = ["run/cellblock/cells", "home/.local/share/cellblock/cells"]
                .iter()
                .flat_map(|d| std::fs::read_dir(self.path(d)).into_iter().flatten().flatten())
                .map(|e| e.path())
                .collect();
            if left.is_empty() || Instant::now() > end {
                return left;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until `check` holds.
    ///
    /// # Panics
    /// If it does not for long.
    pub fn wait(&self, what: &str, mut check: impl FnMut() -> bool) {
        let end = Instant::now() + patience() / 3;
        while !check() {
            assert!(Instant::now() < end, "timed out waiting for: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.cellblock("stop --all -t 0").run();
        for image in ["alpine", "x"] {
            let _ = self.call(&cellblock(), &["image", "remove", image]).run();
        }
        // Kept layers may belong to ids that exist only inside: cellblock's own removal has dealt with them, or they stay in /tmp.
        let _ = Command::new("rm").arg("-rf").arg(&self.root).stderr(Stdio::null()).status();
    }
}

/// A command that is about to run.
#[derive(Debug)]
pub struct Call {
    pub(crate) command: Command,
    input: Option<Vec<u8>>,
}

impl Call {
    /// Gives it standard input.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it elsewhere.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it cannot be started or does not end.
    #[must_use]
    pub fn run(mut self) -> Done {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.input.is_some() {
            self.command.stdin(Stdio::piped());
        }
        let shown = format!("{:?}", self.command.get_args().collect::<Vec<_>>());
        let mut child = self.command.spawn().expect("the command starts");
        let input = self.input.take();
        let stdin = child.stdin.take();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || {
                if let (Some(bytes), Some(mut stdin)) = (input, stdin) {
                    let _ = stdin.write_all(&bytes);
                }
            });
            let pid = rustix::process::Pid::from_child(&child);
            let (done, finished) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                if finished.recv_timeout(patience()).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            });
            let output = child.wait_with_output().expect("its end");
            drop(done);
            output
        });
        Done { output, shown }
    }

    /// Runs it; it must succeed. Its standard output.
    ///
    /// # Panics
    /// If it fails.
    pub fn ok(self) -> String {
        let done = self.run();
        assert!(done.output.status.success(), "{done}");
        done.stdout()
    }

    /// Runs it; it must end with `code`.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn fails(self, code: i32) -> Done {
        let done = self.run();
        assert_eq!(done.code(), Some(code), "{done}");
        done
    }

    /// Starts it and leaves it running.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(mut self) -> std::process::Child {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts")
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Done {
    output: Output,
    shown: String,
}

impl Done {
    /// Standard output, lossily.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// Standard output, byte for byte.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.output.stdout
    }

    /// Standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Exit code, or 128 + signal.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        let signal = |s: ExitStatus| std::os::unix::process::ExitStatusExt::signal(&s).map(|n| 128 + n);
        self.output.status.code().or_else(|| signal(self.output.status))
    }

    /// Standard error must hold this text.
    ///
    /// # Panics
    /// If it does not.
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.stderr().contains(text), "expected «{text}»\n{self}");
        self
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "cellblock {}\nexit {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.shown,
            self.code(),
            self.stdout(),
            self.stderr()
        )
    }
}

/// The command under test.
///
/// # Panics
/// If it is nowhere.
#[must_use]
pub fn cellblock() -> PathBuf {
    if let Some(path) = std::env::var_os("CELLBLOCK_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("own path");
    let path = test.ancestors().nth(2).expect("target/<profile>/deps/<test>").join("cellblock");
    assert!(path.exists(), "{} is not built: run `cargo build`, or set CELLBLOCK_BIN", path.display());
    path
}

/// The Alpine mini root file system, as published.
///
/// # Panics
/// If it is nowhere.
#[must_use]
pub fn alpine() -> PathBuf {
    let path = std::env::var_os("CELLBLOCK_TEST_ALPINE")
        .map(PathBuf::from)
        .or_else(|| find_alpine(Path::new(env!("CARGO_MANIFEST_DIR"))));
    path.expect("set CELLBLOCK_TEST_ALPINE to alpine-minirootfs-3.20.3-x86_64.tar.gz")
}

fn find_alpine(from: &Path) -> Option<PathBuf> {
    from.ancestors().map(|dir| dir.join("shared/data/alpine-minirootfs-3.20.3-x86_64.tar.gz")).find(|p| p.exists())
}

/// Whether these tests run as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this user has subordinate ids.
#[must_use]
pub fn has_range() -> bool {
    subordinate("/etc/subuid").is_some()
}

/// The first subordinate id of this user in `/etc/subuid` or `/etc/subgid`.
#[must_use]
pub fn subordinate(file: &str) -> Option<u32> {
    let name = Command::new("id")
        .arg("-un")
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        .unwrap_or_default();
    let text = std::fs::read_to_string(file).ok()?;
    let ranges = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")))?;
    ranges.split(':').next()?.parse().ok()
}

/// Splits at blanks, but not inside `'…'`.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            all.push(part.to_owned());
        } else {
            all.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    all
}
