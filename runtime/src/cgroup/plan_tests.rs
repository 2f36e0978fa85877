//! Decisions on trees of plain files that look like cgroup file systems.

use std::collections::BTreeMap;

use super::*;
use crate::cgroup::hierarchy::Layout;

/// A directory that looks like a v2 tree.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cellblock-cgroup-{}-{name}", std::process::id()));
        let _ = cellblock_sys::tree::remove(
            std::os::fd::AsFd::as_fd(&std::fs::File::open(std::env::temp_dir()).expect("tmp")),
            path.file_name().expect("name"),
        );
        std::fs::create_dir(&path).expect("mkdir");
        let tree = Self(path);
        tree.group("", &[], "cpu memory pids", "cpu memory pids");
        std::fs::remove_file(tree.0.join("cgroup.type")).expect("the top has no type");
        tree
    }

    fn group(&self, path: &str, members: &[&str], controllers: &str, handed_down: &str) -> &Self {
        let dir = self.0.join(path);
        std::fs::create_dir_all(&dir).expect("mkdir");
        let files = BTreeMap::from([
            ("cgroup.type", "domain\n".to_owned()),
            ("cgroup.procs", members.iter().map(|m| format!("{m}\n")).collect()),
            ("cgroup.controllers", controllers.to_owned()),
            ("cgroup.subtree_control", handed_down.to_owned()),
        ]);
        for (name, text) in files {
            std::fs::write(dir.join(name), text).expect("write");
        }
        self
    }

    fn decide(&self, own: &str, limits: &Limits, change: impl FnOnce(&mut Host<'_>)) -> Result<Decision, CgroupError> {
        self.decide_on("rw,nsdelegate", own, limits, change)
    }

    fn decide_on(
        &self,
        options: &str,
        own: &str,
        limits: &Limits,
        change: impl FnOnce(&mut Host<'_>),
    ) -> Result<Decision, CgroupError> {
        let mountinfo = format!("1 2 0:3 / {} rw - cgroup2 cgroup2 {options}\n", self.0.display());
        let mut host = Host { root: true, booted: false, ours: false, manager: Err("") };
        change(&mut host);
        decide(limits, &Layout::parse(&mountinfo, &format!("0::/{own}\n")), &host)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let tmp = std::fs::File::open(std::env::temp_dir()).expect("tmp");
        let _ = cellblock_sys::tree::remove(std::os::fd::AsFd::as_fd(&tmp), self.0.file_name().expect("name"));
    }
}

fn limits() -> Limits {
    Limits { memory: Some(64 << 20), cpus: Some(1500), pids: Some(20), best_effort: false }
}

fn site(decision: Result<Decision, CgroupError>) -> (PathBuf, Way) {
    match decision.expect("possible") {
        Decision::Ready(plan) => {
            let [site] = plan.sites.as_slice() else { panic!("one site: {plan:?}") };
            (site.parent.clone(), site.way)
        }
        Decision::Scope(manager) => panic!("asks {manager:?}"),
    }
}

#[test]
fn alone_in_a_delegated_group_it_steps_aside() {
    let tree = Tree::new("alone");
    let own = std::process::id().to_string();
    tree.group("scope", &[&own], "cpu memory pids", "");
    assert_eq!(site(tree.decide("scope", &limits(), |_| {})), (tree.0.join("scope"), Way::StepAside));
    assert_eq!(site(tree.decide("scope", &limits(), |h| h.root = false)), (tree.0.join("scope"), Way::StepAside));
    // systemd's, and not said to be delegated: not touched.
    let error = tree.decide("scope", &limits(), |h| (h.booted, h.root) = (true, false)).expect_err("managed");
    assert!(error.to_string().contains("cgroup namespace"), "{error}");
    // Just made for us: no mark is needed.
    let ours = tree.decide("scope", &limits(), |h| (h.booted, h.ours) = (true, true));
    assert_eq!(site(ours), (tree.0.join("scope"), Way::StepAside));
}

#[test]
fn a_login_session_needs_systemd_or_a_group_above() {
    let tree = Tree::new("session");
    tree.group("user.slice", &[], "memory pids", "memory pids").group(
        "user.slice/session",
        &["1", "2"],
        "memory pids",
        "",
    );
    let memory = Limits { memory: Some(1 << 20), ..Limits::default() };
    // Somebody answers.
    let asked = tree.decide("user.slice/session", &memory, |h| h.manager = Ok(Manager::User));
    assert_eq!(asked.expect("ok"), Decision::Scope(Manager::User));
    // Nobody does: the nearest group without members that already hands it down.
    let above = tree.decide("user.slice/session", &memory, |_| {});
    assert_eq!(site(above), (tree.0.join("user.slice"), Way::Below));
    // A controller that it does not hand down is to be had at the top.
    let cpu = Limits { cpus: Some(500), ..Limits::default() };
    assert_eq!(site(tree.decide("user.slice/session", &cpu, |_| {})), (tree.0.clone(), Way::Below));
    // Rootless, nothing above may be used: the cgroup namespace is a boundary ...
    let error = tree.decide("user.slice/session", &memory, |h| h.root = false).expect_err("no way");
    assert!(error.to_string().contains("across a cgroup namespace"), "{error}");
    // ... where it is one.
    let open = tree.decide_on("rw", "user.slice/session", &memory, |h| h.root = false);
    assert_eq!(site(open), (tree.0.join("user.slice"), Way::Below));
}

#[test]
fn reasons_are_named() {
    let tree = Tree::new("reasons");
    let own = std::process::id().to_string();
    std::fs::write(tree.0.join("cgroup.controllers"), "memory pids").expect("write");
    tree.group("a", &["1"], "memory pids", "").group("a/b", &[&own], "memory", "");
    let message = |result: Result<Decision, CgroupError>| result.expect_err("no way").to_string();
    let cpu = Limits { cpus: Some(500), ..Limits::default() };
    assert!(message(tree.decide("a/b", &cpu, |_| {})).contains("cpu: the kernel has no such controller"));
    let read_only = tree.decide_on("ro", "a/b", &cpu, |_| {});
    assert!(message(read_only).contains("read-only"));
    // A scope that systemd has made, but without a controller that it was not given itself.
    let ours =
        tree.decide("a/b", &Limits { pids: Some(5), ..Limits::default() }, |h| (h.booted, h.ours) = (true, true));
    assert!(message(ours).ends_with("a/b has no pids controller (its parents do not hand it down)"));
    // Nothing below, members above, and the top belongs to systemd.
    std::fs::write(tree.0.join("cgroup.subtree_control"), "").expect("write");
    let pids = Limits { pids: Some(5), ..Limits::default() };
    assert!(message(tree.decide("a/b", &pids, |h| h.booted = true)).contains("systemd manages it"));
    let unknown =
        decide(&pids, &Layout::parse("", ""), &Host { root: true, booted: false, ours: false, manager: Err("") });
    assert!(message(unknown).contains("no such controller"));
}

#[test]
fn best_effort_keeps_what_can_be_had() {
    let tree = Tree::new("effort");
    let own = std::process::id().to_string();
    std::fs::write(tree.0.join("cgroup.controllers"), "memory pids").expect("write");
    tree.group("a", &[&own], "memory pids", "");
    let best = Limits { best_effort: true, ..limits() };
    let Ok(Decision::Ready(plan)) = tree.decide("a", &best, |_| {}) else { panic!("never fails") };
    assert_eq!(plan.unenforced().len(), 1, "{plan:?}");
    assert!(plan.unenforced()[0].contains("cpu"), "{plan:?}");
    let [site] = plan.sites.as_slice() else { panic!("{plan:?}") };
    assert_eq!(site.controllers, ["memory", "pids"]);
    let values: Vec<_> = site.files.iter().map(|f| format!("{}={}", f.name, f.value)).collect();
    assert_eq!(values, ["memory.max=67108864", "memory.swap.max=0", "pids.max=20"]);
    assert!(tree.decide("a", &limits(), |_| {}).is_err(), "and without it there is an error");
    // It travels as JSON.
    let text = serde_json::to_string(&plan).expect("json");
    assert_eq!(serde_json::from_str::<Plan>(&text).expect("json"), plan);
}

#[test]
fn v1_controllers_that_share_a_hierarchy_share_a_group() {
    let tree = Tree::new("v1");
    std::fs::create_dir(tree.0.join("own")).expect("mkdir");
    let mountinfo = format!("1 2 0:3 / {} rw - cgroup cgroup rw,cpu,pids\n", tree.0.display());
    let host = Host { root: true, booted: true, ours: false, manager: Ok(Manager::System) };
    let two = Limits { memory: None, ..limits() };
    let layout = Layout::parse(&mountinfo, "3:cpu,pids:/own\n0::/x\n");
    let decision = decide(&two, &layout, &host);
    let Ok(Decision::Ready(plan)) = decision else { panic!("{decision:?}") };
    let [site] = plan.sites.as_slice() else { panic!("{plan:?}") };
    assert_eq!((site.parent.as_path(), site.way), (tree.0.join("own").as_path(), Way::Own));
    let names: Vec<_> = site.files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["cpu.cfs_period_us", "cpu.cfs_quota_us", "pids.max"]);
}
