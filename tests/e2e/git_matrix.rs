//! Every layout of a repository × everything an agent does with git, with the real git; and what the host does afterwards (rows C6, D3).

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use cellblock_tests::{Done, World};

/// A repository in one layout, in a world of its own.
pub(crate) struct Repository {
    pub(crate) world: World,
    /// The work tree that the cell is started in.
    pub(crate) root: PathBuf,
    /// The folder with `config` and `hooks`.
    pub(crate) common: PathBuf,
}

/// What an agent does. `$REMOTE` is a bare repository that the cell may write.
const WORK: &str = r#"
set -e
[ -z "$(git status --porcelain)" ]
git log --oneline -1
echo one >> file; git diff --exit-code >/dev/null && exit 1
git add file; git commit -qm one
git branch side; git switch -q side; echo two > two; git add two; git commit -qm two
git switch -q -; echo three > three; git add three; git commit -qm three
git rebase -q side
git merge -q --no-edit side
echo four >> file; git stash -q; git stash pop -q; git checkout -q -- file
git fetch -q "$REMOTE" feature:refs/remotes/away/feature
git switch -q -c theirs away/feature; git switch -q -
git cherry-pick theirs >/dev/null
git revert --no-edit HEAD >/dev/null
git tag v1; git branch -D side >/dev/null 2>&1
git push -q "$REMOTE" HEAD:refs/heads/from-inside
git push -u "$REMOTE" HEAD:refs/heads/with-upstream >/dev/null 2>&1
git gc -q
git fsck --no-progress >/dev/null 2>&1
git worktree list >/dev/null
[ -z "$(git status --porcelain)" ]
git log --format='%an <%ae>' -1
"#;

impl Repository {
    pub(crate) fn new(layout: &str) -> Self {
        let world = World::new();
        std::fs::rename(world.project(), world.path("unused")).expect("the world's own project");
        world.write("home/.gitconfig", "[user]\n\tname = Ada L\n\temail = ada@example.com\n[init]\n\tdefaultBranch = main\n[protocol \"file\"]\n\tallow = always\n");
        let path = |inside: &str| world.path("home").join(inside);
        std::fs::create_dir(path("demo")).expect("mkdir");
        let git = |dir: &str, line: &str| git(&world, &path(dir), line).ok();
        git("", "init -q --bare remote.git");
        git("", "init -q seed");
        std::fs::write(path("seed/file"), "content\n").expect("write");
        git("seed", "add file");
        git("seed", "commit -qm first");
        git("seed", "push -q ../remote.git main");
        git("seed", "switch -qc feature");
        std::fs::write(path("seed/feature"), "x\n").expect("write");
        git("seed", "add feature");
        git("seed", "commit -qm feature");
        git("seed", "push -q ../remote.git feature");
        std::fs::remove_dir(path("demo")).expect("rmdir");
        let (root, common) = match layout {
            "plain" | "worktree-config" | "nested" => {
                git("", "clone -q remote.git demo");
                if layout == "worktree-config" {
                    git("demo", "config extensions.worktreeConfig true");
                    git("demo", "config --worktree core.logAllRefUpdates true");
                }
                if layout == "nested" {
                    std::fs::write(path("demo/.git/info/exclude"), "inner\n").expect("write");
                    git("", "clone -q remote.git demo/inner");
                    ("demo/inner", "demo/inner/.git")
                } else {
                    ("demo", "demo/.git")
                }
            }
            "linked" | "linked-worktree-config" | "linked-inside" => {
                git("", "clone -q remote.git demo");
                let place = if layout == "linked-inside" { ".trees/wt" } else { "../wt" };
                git("demo", &format!("worktree add -q {place} -b wt"));
                git("demo", "worktree add -q ../other -b other");
                if layout == "linked-worktree-config" {
                    git("demo", "config extensions.worktreeConfig true");
                    git("wt", "config --worktree core.logAllRefUpdates true");
                }
                (if layout == "linked-inside" { "demo/.trees/wt" } else { "wt" }, "demo/.git")
            }
            "bare" => {
                std::fs::create_dir(path("demo")).expect("mkdir");
                git("", "clone -q --bare remote.git demo/.bare");
                git("demo/.bare", "worktree add -q ../wt main");
                ("demo/wt", "demo/.bare")
            }
            "submodule" => {
                git("", "init -q demo");
                git("demo", "submodule --quiet add ../remote.git libs/sub");
                git("demo", "commit -qm sub");
                ("demo/libs/sub", "demo/.git/modules/libs/sub")
            }
            "separate" => {
                git("", "clone -q --separate-git-dir store.git remote.git demo");
                git("", &format!("--git-dir=store.git config core.worktree {}", path("demo").display()));
                ("demo", "store.git")
            }
            "linked-folder" => {
                git("", "clone -q remote.git demo");
                std::fs::create_dir(path("demo/.store")).expect("mkdir");
                std::fs::rename(path("demo/.git"), path("demo/.store/git")).expect("rename");
                symlink(".store/git", path("demo/.git")).expect("symlink");
                std::fs::write(path("demo/.store/git/info/exclude"), ".store\n.git\n").expect("write");
                ("demo", "demo/.store/git")
            }
            other => panic!("{other}"),
        };
        let (root, common) = (path(root), path(common));
        Self { world, root, common }
    }

    /// A shell in a cell on this repository.
    pub(crate) fn inside(&self, flags: &str, script: &str) -> Done {
        let remote = self.world.path("home/remote.git").display().to_string();
        let line = format!("run --net none --image host {flags} -v {remote} -e REMOTE={remote} -- sh -c");
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        words.push(script.to_owned());
        self.world.call(&cellblock_tests::cellblock(), &words).dir(&self.root).run()
    }

    pub(crate) fn git(&self, line: &str) -> Done {
        git(&self.world, &self.root, line).run()
    }

    /// What the host does when the agent has finished; whether something planted ran.
    pub(crate) fn host_works(&self) -> bool {
        let canary = self.world.path("home/canary");
        let _ = std::fs::remove_file(&canary);
        for line in ["status", "log --oneline -1", "diff", "commit -q --allow-empty -m host", "checkout -q -- ."] {
            let done = self.git(line);
            assert_eq!(done.code(), Some(0), "{line}: {done}");
        }
        canary.exists()
    }

    /// Commands that plant a program in every place from which git on the host would run it, each of which may fail.
    fn plants(&self) -> String {
        let canary = self.world.path("home/canary").display().to_string();
        let common = self.common.display();
        format!(
            "cat > /tmp/evil <<'X'\n#!/bin/sh\ntouch {canary}\nX\nchmod +x /tmp/evil
             printf '[core]\\n\\tfsmonitor = \"touch {canary}; false\"\\n\\tpager = touch {canary}\\n\\tsshCommand = touch {canary}\\n\
             [filter \"x\"]\\n\\tclean = touch {canary}; cat\\n[alias]\\n\\tst = !touch {canary}\\n' > /tmp/config
             git rev-parse --git-dir > /tmp/dir; own=$(cat /tmp/dir)
             for dir in {common} \"$own\"; do
                 for hook in pre-commit post-commit post-checkout post-index-change; do cp /tmp/evil $dir/hooks/$hook; done
                 cat /tmp/config >> $dir/config
                 cp /tmp/config $dir/new; mv -f $dir/new $dir/config
                 git config core.fsmonitor 'touch {canary}; false'
                 rm -rf $dir/hooks; mv $dir/hooks $dir/h2; mkdir -p $dir/hooks; cp /tmp/evil $dir/hooks/pre-commit
                 echo '* filter=x' > $dir/info/attributes
                 mv $dir $dir.away; mv {common}/worktrees {common}/w2
             done
             rm -f .git; mv .git away; ln -s /tmp .git; echo 'gitdir: /tmp' > .git
             true"
        )
    }
}

pub(crate) fn git(world: &World, dir: &Path, line: &str) -> cellblock_tests::Call {
    let words: Vec<&str> = line.split_whitespace().collect();
    world.call(Path::new("git"), &words).dir(dir)
}

/// Every path below `root` with its kind, size, mode and inode.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, (u32, u64, u64)> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).expect("a folder").flatten() {
            let metadata = entry.metadata().expect("metadata");
            if metadata.is_dir() {
                left.push(entry.path());
            }
            all.insert(entry.path(), (metadata.mode(), metadata.len(), metadata.ino()));
        }
    }
    all
}

/// The agent's work is done, the host's git works after it, and nothing that the agent plants is run there.
fn works_and_is_fenced(layout: &str) {
    let repository = Repository::new(layout);
    let done = repository.inside("", WORK);
    assert_eq!(done.code(), Some(0), "{layout}: {done}");
    assert!(done.stdout().ends_with("Ada L <ada@example.com>\n"), "{layout}: {done}");
    assert!(!repository.host_works(), "{layout}");
    let pushed = git(&repository.world, &repository.world.path("home/remote.git"), "log --oneline -1 from-inside").ok();
    assert!(pushed.contains("Revert"), "{layout}: {pushed}");

    // Nothing is left of the covers, and nothing that they cover is changed.
    assert!(repository.world.leftovers().is_empty());
    let before = snapshot(&repository.world.path("home"));
    let done = repository.inside("", "true");
    assert_eq!(done.code(), Some(0), "{layout}: {done}");
    assert!(repository.world.leftovers().is_empty());
    let own = repository.world.path("home/.local");
    let after = snapshot(&repository.world.path("home"));
    let differ = |path: &&PathBuf| !path.starts_with(&own) && before.get(*path) != after.get(*path);
    assert_eq!(before.keys().chain(after.keys()).filter(differ).count(), 0, "{layout}");

    let config = std::fs::read_to_string(repository.common.join("config")).expect("config");
    let done = repository.inside("", &repository.plants());
    assert_eq!(done.code(), Some(0), "{layout}: {done}");
    assert_eq!(std::fs::read_to_string(repository.common.join("config")).expect("config"), config, "{layout}");
    assert!(!repository.host_works(), "{layout}: something planted ran\n{done}");

    // The probe works: unprotected, the same commands plant something that runs.
    let hook = repository.world.path("home/canary").display().to_string();
    let plant = format!(
        "mkdir -p {0}; printf '#!/bin/sh\\ntouch {hook}\\n' > {0}/pre-commit; chmod +x {0}/pre-commit",
        repository.common.join("hooks").display()
    );
    let done = repository.inside("--protect off", &plant);
    assert_eq!(done.code(), Some(0), "{layout}: {done}");
    assert!(done.stderr().contains("OFF"), "the audit says so: {done}");
    assert!(repository.host_works(), "{layout}: the canary does not sing");
}

#[test]
fn a_plain_clone() {
    works_and_is_fenced("plain");
}

#[test]
fn a_linked_worktree() {
    works_and_is_fenced("linked");
}

#[test]
fn a_linked_worktree_inside_the_main_one() {
    works_and_is_fenced("linked-inside");
}

#[test]
fn a_worktree_of_a_bare_repository() {
    works_and_is_fenced("bare");
}

#[test]
fn a_submodule() {
    works_and_is_fenced("submodule");
}

#[test]
fn a_nested_repository() {
    works_and_is_fenced("nested");
}

#[test]
fn configurations_of_single_worktrees() {
    works_and_is_fenced("worktree-config");
    works_and_is_fenced("linked-worktree-config");
}

#[test]
fn a_git_folder_kept_elsewhere() {
    works_and_is_fenced("separate");
}

#[test]
fn a_git_folder_behind_a_link() {
    works_and_is_fenced("linked-folder");
}

#[test]
fn a_linked_worktree_cannot_touch_the_others() {
    let repository = Repository::new("linked");
    let main = repository.world.path("home/demo");
    let done = repository.inside("", &format!("ls {}", main.join("file").display()));
    assert_ne!(done.code(), Some(0), "the main worktree's files are not there: {done}");
    let common = repository.common.display();
    for file in [
        "HEAD",
        "index",
        "worktrees/other/HEAD",
        "worktrees/other/index",
        "worktrees/wt/gitdir",
        "worktrees/wt/commondir",
    ] {
        let before = std::fs::read(repository.common.join(file)).expect("there");
        let script = format!(
            "echo evil >> {common}/{file}; echo evil > {common}/x && mv -f {common}/x {common}/{file}; rm -f {common}/{file}; true"
        );
        assert_eq!(repository.inside("", &script).code(), Some(0));
        assert_eq!(std::fs::read(repository.common.join(file)).expect("still there"), before, "{file}");
    }
    // `git worktree prune` takes the others for gone, as their folders are not there, and must not forget them.
    let _ = repository.inside("", "git worktree prune --expire now; git gc -q --prune=now");
    assert_eq!(git(&repository.world, &repository.world.path("home/other"), "status --short").ok(), "");
    // The twin: its own it can write.
    assert_eq!(repository.inside("", "git switch -q --detach && git switch -q wt").code(), Some(0));
}

#[test]
fn files_that_tools_act_on_stay_as_they_are() {
    let repository = Repository::new("plain");
    let root = &repository.root;
    let files = [
        ".envrc",
        ".vscode/tasks.json",
        ".claude/settings.local.json",
        ".mcp.json",
        ".husky/pre-commit",
        ".workmux.yaml",
    ];
    for file in files {
        std::fs::create_dir_all(root.join(file).parent().expect("a folder")).expect("mkdir");
        std::fs::write(root.join(file), "mine").expect("write");
    }
    for file in files {
        let top = file.split('/').next().unwrap_or(file);
        let script =
            format!("echo evil > {file}; rm -rf {top}; mv {top} gone; echo evil > n; mv -f n {file}; rm -f n; true");
        let done = repository.inside("", &script);
        assert_eq!(std::fs::read_to_string(root.join(file)).expect(file), "mine", "{done}");
    }
    assert!(!root.join(".vscode/new").exists());
    let _ = repository.inside("", "touch .vscode/new");
    assert!(!root.join(".vscode/new").exists());
    // Opened by the person it can be written; and never by a file of the repository's.
    std::fs::write(root.join(".cellblock.yaml"), "protect: off\nprotect_except: [.vscode]\n").expect("write");
    let _ = repository.inside("", "touch .vscode/new");
    assert!(!root.join(".vscode/new").exists());
    let done = repository.inside("--unprotect .vscode", "touch .vscode/new; touch .envrc/x || echo x >> .envrc");
    assert!(root.join(".vscode/new").exists(), "{done}");
    assert!(done.stderr().contains("all but"), "the audit says so: {done}");
    assert_eq!(std::fs::read_to_string(root.join(".envrc")).expect("there"), "mine");
    repository.world.configure("defaults:\n  protect_except: [.envrc]\n");
    assert_eq!(repository.inside("", "echo theirs > .envrc").code(), Some(0));
    assert_eq!(std::fs::read_to_string(root.join(".envrc")).expect("there"), "theirs\n");
    // What is not on the list is theirs to write.
    assert_eq!(repository.inside("", "echo x > .claude/notes.md; echo x > Makefile").code(), Some(0));
}

#[test]
fn hooks_elsewhere_in_the_project_are_closed() {
    for absolute in [false, true] {
        let repository = Repository::new("plain");
        let hooks = repository.root.join("tools/hooks");
        std::fs::create_dir_all(&hooks).expect("mkdir");
        let path = if absolute { hooks.display().to_string() } else { "tools/hooks".to_owned() };
        let _ = repository.git(&format!("config core.hooksPath {path}"));
        let canary = repository.world.path("home/canary").display().to_string();
        let plant =
            format!("printf '#!/bin/sh\\ntouch {canary}\\n' > tools/hooks/pre-commit; chmod +x tools/hooks/pre-commit");
        let done =
            repository.inside("", &format!("{plant}; mv tools t2; rm -rf tools; mkdir -p tools/hooks; {plant}; true"));
        assert!(!repository.host_works(), "{done}");
        let done = repository.inside("--unprotect tools/hooks", &plant);
        assert!(repository.host_works(), "the canary does not sing: {done}");
    }
    // Hooks that are a link to outside are not there inside, and neither they nor the link are changed.
    let repository = Repository::new("plain");
    let outside = repository.world.path("home/hooks");
    std::fs::rename(repository.common.join("hooks"), &outside).expect("rename");
    symlink(&outside, repository.common.join("hooks")).expect("symlink");
    let done = repository
        .inside("", "rm -f .git/hooks; mv .git/hooks h; mkdir .git/hooks; echo evil > .git/hooks/pre-commit; ls .git/hooks/ && exit 1; echo x >> file; git commit -qam x");
    assert_eq!(done.code(), Some(0), "{done}");
    assert!(!outside.join("pre-commit").exists() && !repository.host_works());
}

#[test]
fn large_files_are_not_taken_into_commits_without_their_filter() {
    let repository = Repository::new("plain");
    std::fs::write(repository.root.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n")
        .expect("write");
    // The twin: where the host has no git-lfs either, nothing is said about it.
    assert_eq!(repository.inside("", "echo big > a.bin; git add a.bin; git reset -q; rm a.bin").code(), Some(0));
    let config = std::fs::read_to_string(repository.world.path("home/.gitconfig")).expect("there");
    repository.world.write("home/.gitconfig", &format!("{config}[filter \"lfs\"]\n\tprocess = touch /tmp/never\n"));
    let done = repository.inside("", "git config filter.lfs.process; PATH=$(mktemp -d):$PATH; command -v git-lfs || { echo big > a.bin; git add a.bin; }");
    assert!(done.stdout().starts_with("git-lfs filter-process\n"), "fixed words, not the host's: {done}");
    assert!(done.stdout().contains("/git-lfs\n") || done.stderr().contains("lfs"), "{done}");
}

/// With the real git-lfs: what is committed inside is a pointer, and the file is where the host's git looks for it.
#[test]
fn large_files_work_inside_and_outside() {
    let repository = Repository::new("plain");
    repository
        .world
        .call(
            Path::new("sh"),
            &["-c", "git lfs install >/dev/null && git lfs track '*.bin' && git add . && git commit -qm lfs"],
        )
        .dir(&repository.root)
        .ok();
    let script = "
head -c 3000 /dev/zero > big.bin && git add big.bin && git commit -qm big || exit 1
git cat-file -p HEAD:big.bin | sed -n 1p
rm big.bin && git checkout -q big.bin && wc -c < big.bin && git lfs fsck && git status --short
";
    let done = repository.inside("", script);
    assert_eq!(done.stdout(), "version https://git-lfs.github.com/spec/v1\n3000\nGit LFS fsck OK\n", "{done}");
    let host = "git lfs fsck && git status --short && rm big.bin && git checkout -q big.bin && wc -c < big.bin";
    let done = repository.world.call(Path::new("sh"), &["-c", host]).dir(&repository.root).run();
    assert_eq!(done.stdout(), "Git LFS fsck OK\n3000\n", "{done}");
    assert!(!repository.host_works());
}

#[test]
fn nothing_is_widened_by_what_is_wrong() {
    let repository = Repository::new("plain");
    let world = &repository.world;
    let cell = |dir: &Path, script: &str| {
        world.call(&cellblock_tests::cellblock(), &["run", "--net", "none", "--", "sh", "-c", script]).dir(dir).run()
    };
    let path = |inside: &str| world.path("home").join(inside);
    let pointer = |dir: &str, target: &str| {
        std::fs::create_dir_all(path(dir)).expect("mkdir");
        std::fs::write(path(dir).join(".git"), format!("gitdir: {target}\n")).expect("write");
    };
    let demo = path("demo/.git").display().to_string();
    // Somebody else's repository, named by a pointer alone.
    pointer("planted", &demo);
    let done = cell(&path("planted"), &format!("ls {demo}; git status"));
    assert!(done.code() != Some(0), "{done}");
    done.says("does not name").says("not a git repository");
    // The same, passed off as a worktree.
    std::fs::create_dir_all(path("fake")).expect("mkdir");
    for (file, text) in [("HEAD", "ref: refs/heads/x\n"), ("commondir", &*demo), ("gitdir", "x\n")] {
        std::fs::write(path("fake").join(file), text).expect("write");
    }
    pointer("planted2", &path("fake").display().to_string());
    cell(&path("planted2"), "true").says("claims to be a worktree");
    // A main worktree that takes hooks and configuration from elsewhere.
    let _ = git(world, &path(""), "init -q other").run();
    std::fs::write(path("other/.git/commondir"), &demo).expect("write");
    let done = cell(&path("other"), "true");
    assert_eq!(done.code(), Some(125));
    done.says("has no place in a main worktree");
    // A worktree whose main is gone, a bare repository, a broken pointer.
    let linked = Repository::new("linked");
    std::fs::rename(linked.world.path("home/demo/.git"), linked.world.path("gone")).expect("gone");
    let done = linked.inside("", "true");
    assert_eq!(done.code(), Some(125));
    done.says("which is not there").says("worktree repair");
    let done = cell(&path("remote.git"), "true");
    assert_eq!(done.code(), Some(125));
    done.says("is a bare repository");
    pointer("broken", "");
    assert_eq!(cell(&path("broken"), "true").code(), Some(125));
    // No repository at all works, and has nothing to do with git.
    std::fs::create_dir_all(path("none")).expect("mkdir");
    assert_eq!(cell(&path("none"), "touch x").code(), Some(0));
    assert!(path("none/x").exists());
    assert!(world.leftovers().is_empty());
}

#[test]
fn nothing_is_left_when_everything_is_killed() {
    let repository = Repository::new("linked");
    std::fs::create_dir(repository.root.join(".vscode")).expect("mkdir");
    let before = snapshot(&repository.root);
    let common = snapshot(&repository.common);
    let words = ["run", "--net", "none", "--image", "host", "--name", "victim", "--", "sh", "-c", "touch up; sleep 60"];
    let mut child = repository.world.call(&cellblock_tests::cellblock(), &words).dir(&repository.root).start();
    repository.world.wait("the cell is up", || repository.root.join("up").exists());
    child.kill().expect("kill -9");
    let _ = child.wait();
    std::fs::remove_file(repository.root.join("up")).expect("made inside");
    assert_eq!(snapshot(&repository.root), before);
    assert_eq!(snapshot(&repository.common), common);
}
