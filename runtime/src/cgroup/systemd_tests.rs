//! Asking a systemd that is a shell script called `busctl`, found in PATH as the real one is, on a tree of plain files.
//!
//! The environment of a process with threads must not be changed: each test runs a copy of this test program, with the one test of it that is
//! called for, in another environment.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cellblock_bundle::Limits;

use super::plan::Way;
use super::{CgroupError, Plan, Surroundings, group, prepare_in};

/// A person's session on a host of systemd's: what its files say, and a `busctl`.
struct Session(PathBuf);

/// Gives its words to a file, then does what systemd would: a scope with the controllers that the person's systemd has.
const OBEDIENT: &str = r#"#!/bin/sh
printf '%s\n' "$@" >"$TREE/asked"
while [ "$1" != StartTransientUnit ]; do shift; done
unit=$3
while [ "$1" != PIDs ]; do shift; done
scope=$TREE/g/user.slice/$unit
mkdir "$scope"
echo "$4" >"$scope/cgroup.procs"
cat "$TREE/controllers" >"$scope/cgroup.controllers"
: >"$scope/cgroup.subtree_control"
echo domain >"$scope/cgroup.type"
echo "0::/user.slice/$unit" >"$TREE/cgroup"
"#;

impl Session {
    fn new(name: &str, controllers: &str, busctl: Option<&str>) -> Self {
        let path = std::env::temp_dir().join(format!("cellblock-busctl-{}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("bin")).expect("mkdir");
        let session = Self(path);
        let all = "cpu memory pids";
        for (dir, procs, controllers) in
            [("g", "", all), ("g/user.slice", "", all), ("g/user.slice/session", "1\n2\n", all)]
        {
            let dir = session.0.join(dir);
            std::fs::create_dir(&dir).expect("mkdir");
            let files = [("procs", procs), ("controllers", controllers), ("subtree_control", ""), ("type", "domain\n")];
            for (file, text) in files {
                std::fs::write(dir.join(format!("cgroup.{file}")), text).expect("write");
            }
        }
        std::fs::remove_file(session.0.join("g/cgroup.type")).expect("the top has no type");
        std::fs::write(session.0.join("controllers"), controllers).expect("write");
        std::fs::write(session.0.join("cgroup"), "0::/user.slice/session\n").expect("write");
        let mount = format!("1 2 0:3 / {}/g rw - cgroup2 cgroup2 rw,nsdelegate\n", session.0.display());
        std::fs::write(session.0.join("mountinfo"), mount).expect("write");
        if let Some(script) = busctl {
            let file = session.0.join("bin/busctl");
            std::fs::write(&file, script).expect("write");
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("chmod");
        }
        session
    }

    /// What [`in_a_session`] says in it.
    fn prepare(&self, best_effort: bool) -> Output {
        let path = match self.0.join("bin/busctl").exists() {
            true => format!("{}:/usr/bin:/bin", self.0.join("bin").display()),
            false => self.0.join("bin").display().to_string(),
        };
        Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "cgroup::systemd_tests::in_a_session", "--ignored", "--nocapture"])
            .env_clear()
            .env("PATH", path)
            .env("TREE", &self.0)
            .env("BEST_EFFORT", if best_effort { "yes" } else { "no" })
            .output()
            .expect("it runs")
    }

    fn plan(&self, best_effort: bool) -> Plan {
        let output = self.prepare(best_effort);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let plan = text.lines().find_map(|l| l.split_once("plan: ")).unwrap_or_else(|| panic!("{output:?}")).1;
        serde_json::from_str(plan).expect("a plan")
    }

    fn error(&self) -> String {
        let output = self.prepare(false);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find_map(|l| l.split_once("error: ")).unwrap_or_else(|| panic!("{output:?}")).1.to_owned()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let tmp = std::fs::File::open(std::env::temp_dir()).expect("tmp");
        let _ = cellblock_sys::tree::remove(std::os::fd::AsFd::as_fd(&tmp), self.0.file_name().expect("name"));
    }
}

fn all(best_effort: bool) -> Limits {
    Limits { memory: Some(64 << 20), cpus: Some(1500), pids: Some(20), best_effort }
}

#[test]
#[ignore = "part of the others: it needs their environment"]
fn in_a_session() {
    let of = |name: &str| std::env::var_os(name).expect("run by another test");
    let tree = PathBuf::from(of("TREE"));
    let [mountinfo, cgroup] = ["mountinfo", "cgroup"].map(|file| tree.join(file));
    let seen = Surroundings { mountinfo: &mountinfo, cgroup: &cgroup, booted: true, bus: &tree.join("bus") };
    match prepare_in(&all(of("BEST_EFFORT") == "yes"), "my+cell", false, &seen) {
        Ok(plan) => {
            let pid = std::process::id().to_string();
            assert!(plan.paths("my+cell").iter().all(|p| p.ends_with(group::name_of("my+cell"))));
            let asked = std::fs::read_to_string(tree.join("asked")).unwrap_or_default();
            assert!(asked.is_empty() || asked.lines().any(|l| l == pid), "it asks for itself: {asked}");
            println!("\nplan: {}", serde_json::to_string(&plan).expect("json"));
        }
        Err(error) => println!("\nerror: {error}"),
    }
}

#[test]
fn a_scope_with_all_controllers() {
    let session = Session::new("all", "cpu memory pids", Some(OBEDIENT));
    let plan = session.plan(false);
    let [site] = plan.sites.as_slice() else { panic!("{plan:?}") };
    assert_eq!((site.way, plan.unenforced().len()), (Way::StepAside, 0));
    let unit = site.parent.file_name().expect("name").to_str().expect("utf-8");
    assert!(unit.starts_with("cellblock-my\\x2bcell-") && unit.ends_with(".scope"), "{unit}");
    let asked = std::fs::read_to_string(session.0.join("asked")).expect("it was asked");
    assert!(asked.starts_with("--user\n") && asked.contains("\nDelegate\nb\ntrue\n"), "{asked}");
}

#[test]
fn what_systemd_was_not_given_is_named_and_the_rest_is_kept() {
    let session = Session::new("some", "memory pids", Some(OBEDIENT));
    let error = session.error();
    assert!(error.contains("cpus limit") && error.contains(".scope has no cpu controller"), "{error}");
    let session = Session::new("best", "memory pids", Some(OBEDIENT));
    let plan = session.plan(true);
    assert!(plan.unenforced().len() == 1 && plan.unenforced()[0].contains("no cpu controller"), "{plan:?}");
    assert_eq!(plan.sites[0].controllers, ["memory", "pids"]);
}

#[test]
fn its_refusal_is_the_reason() {
    for (name, script, words) in [
        ("no", Some("#!/bin/sh\necho 'Call failed: Access denied' >&2\nexit 1\n"), "Call failed: Access denied"),
        ("none", None, "busctl cannot be run"),
    ] {
        let session = Session::new(name, "", script);
        let error = session.error();
        assert!(error.contains(words) && error.contains("limit cannot be enforced"), "{error}");
        let plan = session.plan(true);
        assert!(plan.sites.is_empty() && plan.unenforced().len() == 3, "{plan:?}");
        assert!(plan.unenforced().iter().all(|u| u.contains(words) && !u.contains('\n')), "{plan:?}");
    }
}

/// `sudo -u` and cron set nothing by which the person's systemd is found, but it is there.
#[test]
fn where_the_environment_leads_nowhere_its_own_socket_is_asked() {
    let script = OBEDIENT.replacen('\n', "\n[ $1 = --user ] && { echo 'not defined' >&2; exit 1; }\n", 1);
    let session = Session::new("lost", "cpu memory pids", Some(&script));
    let error = session.error();
    assert!(error.ends_with("not defined"), "without a socket there is nobody else to ask: {error}");
    std::fs::write(session.0.join("bus"), "").expect("write");
    assert!(session.error().ends_with("not defined"), "a file is no socket");
    std::fs::remove_file(session.0.join("bus")).expect("remove");
    let _socket = std::os::unix::net::UnixListener::bind(session.0.join("bus")).expect("a socket");
    assert_eq!(session.plan(false).sites[0].way, Way::StepAside);
    let asked = std::fs::read_to_string(session.0.join("asked")).expect("it was asked");
    let address = format!("--address=unix:path={}/bus\n", session.0.display());
    assert!(asked.starts_with(&address), "{asked}");
}

/// Controllers on v1 need no scope: a systemd that says no takes nothing from them.
#[test]
fn hybrid_hosts_keep_their_v1_limits() {
    let session = Session::new("hybrid", "", Some("#!/bin/sh\nexit 1\n"));
    let v1 = session.0.join("v1");
    std::fs::create_dir(&v1).expect("mkdir");
    let mounts = std::fs::read_to_string(session.0.join("mountinfo")).expect("read");
    let v1_mount = format!("2 2 0:4 / {} rw - cgroup cgroup rw,pids\n", v1.display());
    std::fs::write(session.0.join("mountinfo"), mounts + &v1_mount).expect("write");
    std::fs::write(session.0.join("cgroup"), "1:pids:/\n0::/user.slice/session\n").expect("write");
    let plan = session.plan(true);
    assert_eq!((plan.sites.len(), plan.sites[0].way, plan.sites[0].parent.as_path()), (1, Way::Own, v1.as_path()));
    assert_eq!(plan.unenforced().len(), 2, "{plan:?}");
}

#[test]
fn without_systemd_a_session_has_no_place() {
    let session = Session::new("plain", "", None);
    let [mountinfo, cgroup] = ["mountinfo", "cgroup"].map(|file| session.0.join(file));
    let seen = Surroundings { mountinfo: &mountinfo, cgroup: &cgroup, booted: false, bus: Path::new("") };
    let error = prepare_in(&all(false), "c", false, &seen).expect_err("nobody to ask");
    assert!(
        matches!(&error, CgroupError::NotDelegated { path, .. } if path.starts_with(Path::new(&session.0))),
        "{error}"
    );
    assert!(error.to_string().contains("across a cgroup namespace"), "{error}");
}
