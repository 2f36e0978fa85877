//! Repositories as git lays them out, and as an attacker would.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A canonical temporary folder.
struct World(#[expect(dead_code, reason = "removes the folder at the end")] tempfile::TempDir, PathBuf);

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        Self(dir, path)
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.1.join(relative)
    }

    fn file(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A repository's folder, as `git init` makes it.
    fn repository(&self, git_dir: &str, head: &str) {
        fs::create_dir_all(self.path(git_dir).join("objects")).unwrap();
        fs::create_dir_all(self.path(git_dir).join("refs/heads")).unwrap();
        self.file(&format!("{git_dir}/HEAD"), head);
    }

    /// A linked worktree, as `git worktree add` makes it.
    fn worktree(&self, common: &str, name: &str, root: &str, head: &str) {
        let at = format!("{common}/worktrees/{name}");
        self.file(&format!("{at}/HEAD"), head);
        self.file(&format!("{at}/commondir"), "../..\n");
        self.file(&format!("{at}/gitdir"), &format!("{}\n", self.path(root).join(".git").display()));
        self.file(&format!("{root}/.git"), &format!("gitdir: {}\n", self.path(&at).display()));
    }

    fn find(&self, relative: &str) -> ProjectFacts {
        self.try_find(relative).unwrap_or_else(|e| panic!("{relative}: {e}"))
    }

    fn try_find(&self, relative: &str) -> Result<ProjectFacts, ProjectError> {
        find(&self.path(relative), rustix::process::geteuid().as_raw(), false)
    }

    /// An error's text, without the temporary folder.
    fn told(&self, relative: &str) -> String {
        let error = self.try_find(relative).expect_err(relative);
        error.to_string().replace(self.1.to_str().unwrap(), "W")
    }
}

#[test]
fn a_main_worktree() {
    let w = World::new();
    w.repository("My Web/.git", "ref: refs/heads/feature/Login\n");
    fs::create_dir_all(w.path("My Web/src/deep")).unwrap();
    let facts = w.find("My Web/src/deep");
    assert_eq!(facts.root, w.path("My Web"));
    assert_eq!(facts.canonical_root, facts.root);
    assert_eq!(facts.cwd, w.path("My Web/src/deep"));
    assert_eq!(facts.name, "my-web");
    assert_eq!(facts.head, Head::Branch("feature/Login".into()));
    assert_eq!(facts.id, id(&w.path("My Web")));
    let own = w.path("My Web/.git");
    assert_eq!(facts.git, Some(Git { git_dir: own.clone(), common_dir: own, linked: false, confirmed: true }));
    assert_eq!(facts.to_project().branch.as_deref(), Some("feature/Login"));
    // Started inside the repository's own folder.
    assert_eq!(w.find("My Web/.git/refs").root, w.path("My Web"));
}

#[test]
fn heads() {
    let w = World::new();
    let cases = [
        (format!("{COMMIT}\n"), Head::Detached("0123456".into())),
        ("ab".repeat(32), Head::Detached("abababa".into())),
        ("ref: refs/heads/.invalid\n".into(), Head::Unknown),
        ("ref: refs/remotes/x/y\n".into(), Head::Unknown),
        ("ref: refs/heads/a\x1bb\n".into(), Head::Unknown),
        ("ref:refs/heads/main".into(), Head::Branch("main".into())),
    ];
    for (text, want) in cases {
        w.repository("p/.git", &text);
        assert_eq!(w.find("p").head, want, "{text:?}");
    }
    fs::remove_file(w.path("p/.git/HEAD")).unwrap();
    symlink("refs/heads/old", w.path("p/.git/HEAD")).unwrap();
    assert_eq!(w.find("p").head, Head::Branch("old".into()));
    fs::remove_file(w.path("p/.git/HEAD")).unwrap();
    w.file("p/.git/HEAD", "nonsense\n");
    assert_eq!(w.told("p"), "W/p/.git/HEAD is not what git writes: it names neither a branch nor a commit");
}

#[test]
fn linked_worktrees_share_the_projects_id() {
    let w = World::new();
    w.repository("web/.git", "ref: refs/heads/main\n");
    w.worktree("web/.git", "x", "web__worktrees/x", "ref: refs/heads/x\n");
    let (main, linked) = (w.find("web"), w.find("web__worktrees/x"));
    assert_eq!((linked.id.as_str(), linked.name.as_str()), (main.id.as_str(), "web"));
    assert_eq!(linked.root, w.path("web__worktrees/x"));
    assert_eq!(linked.canonical_root, w.path("web"));
    assert_eq!(linked.head, Head::Branch("x".into()));
    let git = linked.git.expect("a repository");
    assert_eq!((git.common_dir, git.linked, git.confirmed), (w.path("web/.git"), true, true));
}

#[test]
fn worktrees_with_relative_paths_and_of_bare_repositories() {
    let w = World::new();
    w.repository("web/.bare", "ref: refs/heads/main\n");
    w.worktree("web/.bare", "x", "web/x", "ref: refs/heads/x\n");
    w.file("web/.bare/worktrees/x/gitdir", "../../../x/.git\n");
    w.file("web/x/.git", "gitdir: ../.bare/worktrees/x\n");
    w.file("web/.git", "gitdir: ./.bare\n");
    assert_eq!(w.find("web/x").canonical_root, w.path("web"));
    assert_eq!(w.find("web/x").id, w.find("web").id);
    // Two bare repositories side by side are two projects.
    w.repository("srv/a.git", "ref: refs/heads/main\n");
    w.repository("srv/b.git", "ref: refs/heads/main\n");
    w.worktree("srv/a.git", "x", "wa", "ref: refs/heads/x\n");
    w.worktree("srv/b.git", "x", "wb", "ref: refs/heads/x\n");
    assert_eq!(w.find("wa").name, "a");
    assert_ne!(w.find("wa").id, w.find("wb").id);
    assert_eq!(w.told("srv/a.git/refs"), "W/srv/a.git is a bare repository: there are no files to work on");
}

#[test]
fn a_claim_that_the_repository_does_not_confirm_is_refused() {
    let w = World::new();
    w.repository("web/.git", "ref: refs/heads/main\n");
    w.worktree("web/.git", "x", "good", "ref: refs/heads/x\n");
    assert_eq!(w.find("good").canonical_root, w.path("web"));
    // The same pointer from another folder.
    w.file("evil/.git", &fs::read_to_string(w.path("good/.git")).unwrap());
    assert_eq!(w.told("evil"), "W/evil/.git claims to be a worktree of W/web/.git, which names another folder for it");
    // A git dir of the attacker's own that only names the other as its common one.
    w.file("evil2/fake/HEAD", "ref: refs/heads/x\n");
    w.file("evil2/fake/commondir", &w.path("web/.git").display().to_string());
    w.file("evil2/fake/gitdir", &w.path("evil2/.git").display().to_string());
    w.file("evil2/.git", "gitdir: fake\n");
    assert_eq!(
        w.told("evil2"),
        "W/evil2/.git claims to be a worktree of W/web/.git, which names another folder for it"
    );
    // Pointing at the other's git dir directly stands for itself only.
    w.file("evil3/.git", &format!("gitdir: {}\n", w.path("web/.git").display()));
    assert_eq!(w.find("evil3").canonical_root, w.path("evil3"));
    assert_ne!(w.find("evil3").id, w.find("web").id);
}

#[test]
fn submodules_are_projects_of_their_own() {
    let w = World::new();
    w.repository("web/.git", "ref: refs/heads/main\n");
    w.repository("web/.git/modules/lib", &format!("{COMMIT}\n"));
    w.file("web/lib/.git", "gitdir: ../.git/modules/lib\n");
    let facts = w.find("web/lib");
    assert_eq!((facts.root, facts.name.as_str()), (w.path("web/lib"), "lib"));
}

#[test]
fn broken_pointers_are_told() {
    let w = World::new();
    w.file("a/.git", "gitdir: ../gone\n");
    assert_eq!(w.told("a"), "W/a/.git points to W/a/../gone, which is not there");
    w.file("b/.git", "hello\n");
    assert_eq!(w.told("b"), "W/b/.git is not what git writes: it does not begin with `gitdir: `");
    w.file("c/.git", "gitdir: \n");
    assert_eq!(w.told("c"), "W/c/.git is not what git writes: it does not begin with `gitdir: `");
    fs::create_dir_all(w.path("empty")).unwrap();
    w.file("d/.git", "gitdir: ../empty\n");
    assert_eq!(w.told("d"), "W/empty is not what git writes: it has no HEAD");
    fs::create_dir_all(w.path("e")).unwrap();
    fs::write(w.path("e/.git"), b"gitdir: \xff\n").unwrap();
    assert_eq!(w.told("e"), "W/e/.git is not what git writes: it is not text");
    w.file("f/.git", &format!("gitdir: /{}\n", "a/".repeat(2500)));
    assert_eq!(w.told("f"), "W/f/.git is not what git writes: what it points to is longer than a path can be");
}

#[test]
fn a_fifo_does_not_hold_us() {
    let w = World::new();
    w.repository("p/.git", "ref: refs/heads/main\n");
    fs::remove_file(w.path("p/.git/HEAD")).unwrap();
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, w.path("p/.git/HEAD"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(w.find("p").git, None, "without a HEAD it is no repository");
    fs::create_dir_all(w.path("q")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, w.path("q/.git"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(w.told("q"), "W/q/.git is not what git writes: it is not a file");
}

#[test]
fn outside_git_the_folder_is_the_project() {
    let w = World::new();
    fs::create_dir_all(w.path("Plain.Dir/.git")).unwrap();
    symlink(w.path("Plain.Dir"), w.path("link")).unwrap();
    let facts = w.find("link");
    assert_eq!((facts.root.clone(), facts.name.as_str()), (w.path("Plain.Dir"), "plain.dir"));
    assert_eq!((facts.head, facts.git), (Head::Unknown, None));
    assert!(w.told("gone").starts_with("the folder W/gone cannot be entered"));
    w.file("file", "");
    assert!(w.told("file").starts_with("the folder W/file cannot be entered"));
}

#[test]
fn paths_that_are_not_utf8_are_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let w = World::new();
    let path = w.1.join(OsStr::from_bytes(b"a\xff"));
    fs::create_dir(&path).unwrap();
    let error = find(&path, 0, false).unwrap_err();
    assert!(matches!(error, ProjectError::NotUtf8 { .. }), "{error}");
}

#[test]
fn a_repository_of_somebody_elses_does_not_draw_us_in() {
    let w = World::new();
    w.repository("p/.git", "ref: refs/heads/main\n");
    fs::create_dir_all(w.path("p/sub")).unwrap();
    let owner = rustix::process::geteuid().as_raw();
    let as_user = |uid, trusted| find(&w.path("p/sub"), uid, trusted);
    // Owned by root, when the test runs as root: everyone takes it. Hand it to another user then.
    let owner = if owner == 0 {
        std::os::unix::fs::lchown(w.path("p/.git"), Some(4321), None).unwrap();
        4321
    } else {
        owner
    };
    assert!(matches!(as_user(owner + 1, false), Err(ProjectError::Foreign { owner: found, .. }) if found == owner));
    for (uid, trusted) in [(owner, false), (owner + 1, true), (0, false)] {
        assert_eq!(as_user(uid, trusted).unwrap().root, w.path("p"), "{uid} {trusted}");
    }
}

#[test]
fn names_have_a_cells_letters() {
    let cases = [
        ("web", "web"),
        ("My Web!", "my-web"),
        ("feature/Login #12", "feature-login-12"),
        ("--x--", "x"),
        (".hidden", "hidden"),
        ("a  b", "a-b"),
        ("日本", ""),
        ("été", "t"),
        ("v1.2_3", "v1.2_3"),
    ];
    for (text, want) in cases {
        assert_eq!(sanitise(text), want, "{text}");
    }
}

#[test]
fn ids_are_stable() {
    // printf /home/ada/web | sha256sum
    assert_eq!(id(Path::new("/home/ada/web")), "79a78d3b82328dbf");
}

#[test]
fn folders_that_are_no_project() {
    let homes = [PathBuf::from("/home/ada"), PathBuf::from("/data/homes/ada")];
    let own = [PathBuf::from("/home/ada/.local/share/cellblock"), PathBuf::from("/run/user/1000/cellblock")];
    let kind = |path: &str| {
        refuse(Path::new(path), &homes, &own).map(|r| match r {
            Refusal::Root => "root",
            Refusal::Kernel { .. } => "kernel",
            Refusal::Home { .. } => "home",
            Refusal::System { .. } => "system",
            Refusal::Own { .. } => "own",
        })
    };
    let cases = [
        ("/", Some("root")),
        ("/proc", Some("kernel")),
        ("/dev/shm/x", Some("kernel")),
        ("/home", Some("home")),
        ("/home/ada", Some("home")),
        ("/data", Some("home")),
        ("/home/ada/.local", Some("own")),
        ("/home/ada/.local/share/cellblock/images", Some("own")),
        ("/run/user/1000", Some("own")),
        ("/etc", Some("system")),
        ("/tmp", Some("system")),
        ("/usr", Some("system")),
        ("/home/ada/web", None),
        ("/home/adam", None),
        ("/tmp/x", None),
        ("/usr/src/linux", None),
        ("/var/www", None),
    ];
    for (path, want) in cases {
        assert_eq!(kind(path), want, "{path}");
    }
    assert!(!Refusal::Root.can_be_forced());
    assert!(Refusal::Home { path: "/home".into() }.can_be_forced());
}
