//! `cellblock net`: what is seen and what is steered, with files and a socket of the test's own, and with a real cell.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use cellblock_tests::World;
use cellblock_tests::internet::Internet;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::terminal::{Tmux, script};

/// A line of an audit.
fn line(event: &str, verdict: &str, name: &str, more: Value) -> String {
    let mut line = json!({"time": "2026-01-02T03:04:05.678Z", "event": event, "verdict": verdict, "name": name});
    line.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    // The time first, as the network writes it.
    let time = line.as_object_mut().expect("an object").remove("time").expect("a time");
    format!("{{\"time\":{time},{}\n", &line.to_string()[1..])
}

fn denied(name: &str, port: u16) -> String {
    line("connect", "deny", name, json!({"port": port, "why": "no rule allows it", "time": now()}))
}

fn used(name: &str, port: u16) -> String {
    let more =
        json!({"port": port, "protocol": "tls", "address": "93.184.216.34", "rule": "*.all.example", "origin": "@x"});
    line("connect", "allow", name, more)
}

fn now() -> String {
    let output = std::process::Command::new("date").args(["-u", "+%FT%T.%3NZ"]).output().expect("date");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn audit(cell: &str) -> String {
    format!("home/.local/state/cellblock/audit/{cell}.jsonl")
}

fn append(world: &World, inside: &str, text: &str) {
    let path = world.path(inside);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("open");
    file.write_all(text.as_bytes()).expect("write");
}

/// A running cell without a network of its own, and somebody who answers in the place of one.
struct Fake {
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Fake {
    fn new(world: &World, cell: &str, answer: fn(&Value) -> Value) -> Self {
        world.cellblock(&format!("run -d --net none --name {cell} -- sleep 100")).ok();
        let path = world.path(&format!("run/cellblock/cells/{cell}/net.sock"));
        let listener = UnixListener::bind(path).expect("a socket");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let serve = move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut text = String::new();
                BufReader::new(&stream).read_line(&mut text).expect("a request");
                let request: Value = serde_json::from_str(&text).expect("json");
                let reply = answer(&request);
                seen.lock().expect("lock").push(request);
                let _ = stream.write_all(format!("{reply}\n").as_bytes());
            }
        };
        std::thread::Builder::new().spawn(serve).expect("a thread");
        Self { asked }
    }

    /// The changes that were asked for, as `allow example.com 60`.
    fn changes(&self) -> Vec<String> {
        let asked = self.asked.lock().expect("lock");
        let text = |r: &Value| {
            let word = |key: &str| r[key].as_str().unwrap_or_default().to_owned();
            let seconds = r["seconds"].as_u64().map(|s| format!(" {s}")).unwrap_or_default();
            format!("{} {}{seconds}", word("request"), word("entry"))
        };
        asked.iter().filter(|r| r["request"] != "show").map(text).collect()
    }
}

/// What is in force, for a network that does everything asked for.
fn obliging(request: &Value) -> Value {
    if request["request"] != "show" {
        return json!({"reply": "done", "cut": 2});
    }
    json!({
        "reply": "show", "capture": "a listener on each of 2 ports", "connections": 1, "names": 2, "audit": "/a/c.jsonl",
        "publish": ["127.0.0.1:8080:80"],
        "allow": [{"rule": "all.example:443", "origin": "config.yaml:3"}, {"rule": "b.org", "origin": "net allow", "seconds": 9}],
        "deny": [{"rule": "*.evil.com", "origin": "net deny\u{1b}[2J"}],
    })
}

#[test]
fn the_log_is_for_people_and_for_programs() {
    let world = World::new();
    append(&world, &format!("{}.1", audit("demo-main-sh")), &used("older.all.example", 443));
    append(&world, &audit("demo-main-sh"), &used("x.all.example", 443));
    append(
        &world,
        &audit("demo-main-sh"),
        &line("dns", "deny", "a\u{1b}[31m\u{9b}b\nc\u{202e}", json!({"method": "A"})),
    );
    append(&world, &audit("demo-main-sh"), "half a li");
    append(&world, &audit("demo-main-sh"), &line("dns", "deny", "late.example", json!({"time": now(), "count": 7})));
    append(&world, &audit("demo-main-sh"), "garbage\n");
    append(&world, &audit("other"), &used("other.example", 443));
    let done = world.cellblock("net log demo-main-sh").run();
    done.says("a line of the audit is damaged");
    let text = done.stdout();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.lines().next().expect("a line").contains("older.all.example:443 (93.184.216.34) tls"), "{text}");
    assert!(text.contains("[*.all.example, @x]") && text.contains("look-up late.example  (7 more)"), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{text:?}");

    // The cell of this project that ran last, though another was written to later.
    assert_eq!(world.cellblock("net log").ok(), text);
    assert_eq!(world.cellblock("net log demo").ok(), text, "by the project's name");
    assert_eq!(world.cellblock("net log --denied").ok().lines().count(), 2);
    assert_eq!(world.cellblock("net log -n 1").ok().lines().count(), 1);
    assert_eq!(world.cellblock("net log -n 0").ok(), "");
    let young = world.cellblock("net log --since 10m").ok();
    assert!(young.contains("late.example") && young.lines().count() == 1, "{young}");
    let json = world.cellblock("net log --json").ok();
    assert!(!json.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{json:?}");
    let names: Vec<Value> =
        json.lines().map(|l| serde_json::from_str::<Value>(l).expect("json")["name"].clone()).collect();
    assert_eq!(names, ["older.all.example", "x.all.example", "a\u{1b}[31m\u{9b}b\nc\u{202e}", "late.example"]);
    // Colours are for terminals.
    assert!(script(&world, "net log other").contains("\u{1b}[32mallow"));
}

#[test]
fn a_log_that_is_not_there_is_an_error_that_says_so() {
    let world = World::new();
    world.cellblock("net log").fails(125).says("none has left an audit");
    world.cellblock("net log nowhere").fails(125).says("no audit of a cell named `nowhere`").says("hint:");
    world.cellblock("net log ../x").fails(125).says("error:");
    world.cellblock("net suggest nowhere").fails(125).says("no audit of a cell");
    world.cellblock("net log --since soon").fails(125).says("10m");
}

#[test]
fn following_survives_a_renaming_and_a_file_yet_to_come() {
    let world = World::new();
    let mut child = world.cellblock("net log -f --denied c").start();
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut next = || {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        line
    };
    std::thread::sleep(std::time::Duration::from_millis(200));
    append(&world, &audit("c"), &used("allowed.example", 443));
    append(&world, &audit("c"), &denied("one.example", 443));
    assert!(next().contains("one.example:443"));
    let path = world.path(&audit("c"));
    append(&world, &audit("c"), &denied("two.example", 443));
    std::fs::rename(&path, world.path(&format!("{}.1", audit("c")))).expect("rename");
    append(&world, &audit("c"), &denied("three.example", 443));
    assert!(next().contains("two.example"));
    assert!(next().contains("three.example"));
    kill_process(Pid::from_child(&child), Signal::INT).expect("kill");
    let end = child.wait().expect("its end");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&end), Some(2), "as a shell expects it: {end}");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert!(said.contains("nothing is written about the cell c yet") && !said.contains("error"), "{said}");
}

#[test]
fn following_ends_when_nobody_reads() {
    let world = World::new();
    append(&world, &audit("c"), &denied("one.example", 443));
    let mut child = world.cellblock("net log -f c").start();
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert!(line.contains("one.example"));
    // The pipe is closed, and no further line comes.
    assert_eq!(child.wait().expect("its end").code(), Some(0));
}

#[test]
fn show_prints_what_is_in_force() {
    let world = World::new();
    world.cellblock("net show").fails(125).says("no cell of this project is running").says("hint:");
    world.cellblock("net show c").fails(125).says("no cell or project named `c` is running");
    let _fake = Fake::new(&world, "c", obliging);
    let text = world.cellblock("net show").ok();
    for part in ["all.example:443", "config.yaml:3", "9 s more", "*.evil.com", "127.0.0.1:8080:80", "2 ports"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let json: Value = serde_json::from_str(&world.cellblock("net show --json c").ok()).expect("json");
    assert_eq!((&json["name"], &json["allow"][1]["seconds"]), (&json!("c"), &json!(9)));
    world.cellblock("run -d --net none --name d -- sleep 100").ok();
    world.cellblock("net show").fails(125).says("several cells of this project are running").says("c").says("d");
    world.cellblock("net show d").fails(125).says("its network is `none`").says("--net names");
}

#[test]
fn rules_are_sent_to_the_running_cell() {
    let world = World::new();
    world.cellblock("net allow a.com").fails(125).says("no cell of this project is running").says("--save");
    let fake = Fake::new(&world, "c", obliging);
    world.cellblock("net allow a.com").run().says("The cell c may now reach a.com.");
    world.cellblock("net allow a.com:22 c --for 10m").run().says("for 10m");
    world.cellblock("net allow 'GET https://pypi.org/simple/**'").ok();
    world
        .cellblock("net allow a.evil.com")
        .run()
        .says("a rule that denies still beats it: *.evil.com (net deny\\u{1b}[2J)");
    world.cellblock("net deny a.com").run().says("2 connections were cut");
    let sent =
        ["allow a.com", "allow a.com:22 600", "allow GET https://pypi.org/simple/**", "allow a.evil.com", "deny a.com"];
    assert_eq!(fake.changes(), sent);
    // What is wrong is said in the language's own words, and nothing is sent.
    world.cellblock("net allow *.com").fails(125).says("at least two labels").says("hint:");
    world.cellblock("net allow ''").fails(125).says("a rule is missing");
    world.cellblock("net deny 'GET https://a.com/x'").fails(125).says("not about single requests");
    world.cellblock("net allow @nowhere").fails(125).says("there is no set @nowhere");
    world.cellblock("net allow a.com b.com").fails(125).says("one rule at a time");
    world.cellblock("net allow a.com --for 10m --save").fails(125).says("cannot be used with");
    world.cellblock("net allow a.com --for 0s").fails(125).says("at least a second");
    assert_eq!(fake.changes(), sent);
}

#[test]
fn a_network_that_refuses_is_believed() {
    let world = World::new();
    let _fake = Fake::new(&world, "c", |_| json!({"reply": "failed", "why": "too many\u{1b}[2J ports"}));
    world.cellblock("net allow a.com").fails(125).says("did not do it: too many\\u{1b}[2J ports");
    world.cellblock("net allow a.com --save").fails(125).says("did not do it");
    assert!(!world.path("home/.config/cellblock/rules").exists(), "what is not in force is not kept");
    let _odd = Fake::new(&world, "d", |_| json!({"reply": "nonsense"}));
    world.cellblock("net show d").fails(125).says("does not answer");
}

/// The only file of kept rules, as text.
fn kept(world: &World) -> String {
    let files = std::fs::read_dir(world.path("home/.config/cellblock/rules")).expect("a folder").flatten();
    let files: Vec<_> = files.map(|f| f.path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    std::fs::read_to_string(&files[0]).expect("text")
}

#[test]
fn rules_are_kept_for_the_project() {
    let world = World::new();
    world.cellblock("net allow a.com --save").run().says("Kept for the project demo").says("from the next start on");
    world.cellblock("net deny b.com --save").ok();
    world.cellblock("net allow a.com --save").run().says("already");
    assert!(kept(&world).starts_with("a.com  # 20") && kept(&world).contains("\ndeny b.com  # 20"), "{}", kept(&world));
    let plan = |flags: &str| -> Value {
        let plan = world.cellblock(&format!("run --dry-run --json {flags} -- true")).ok();
        serde_json::from_str::<Value>(&plan).expect("json")["cell"]["reach"].clone()
    };
    let has = |list: &Value, rule: &str| list.as_array().expect("a list").iter().any(|s| s["rule"] == rule);
    let reach = plan("");
    assert!(has(&reach["allow"], "a.com") && has(&reach["allow"], "@dev") && has(&reach["deny"], "b.com"), "{reach}");
    assert!(reach["deny"][0]["origin"].as_str().expect("text").ends_with(".rules:2"), "{reach}");
    let reach = plan("--no-default-allow");
    assert!(!has(&reach["allow"], "a.com") && has(&reach["deny"], "b.com"), "a denial always counts: {reach}");
    let reach = plan("--no-project");
    assert!(!has(&reach["allow"], "a.com"), "{reach}");

    world.cellblock("net forget a.com").run().says("Forgotten");
    world.cellblock("net forget a.com").fails(125).says("is not kept for this project").says(".rules");
    assert!(!has(&plan("")["allow"], "a.com"));
    let fake = Fake::new(&world, "c", obliging);
    world.cellblock("net deny b.com --save").run().says("already");
    world.cellblock("net allow b.com --save").run().says("denied it until now");
    assert_eq!(fake.changes(), ["deny b.com", "allow b.com"]);
    // A cell without a project has nothing to keep a rule for.
    world.cellblock("run -d --no-project --name lone -- sleep 100").ok();
    world.cellblock("net allow a.com lone --save").fails(125).says("no project");
}

#[test]
fn a_kept_rule_that_cannot_be_read_stops_a_start() {
    let world = World::new();
    world.cellblock("net deny b.com --save").ok();
    world.cellblock("run -- true").ok();
    let folder = world.path("home/.config/cellblock/rules");
    let file = std::fs::read_dir(folder).expect("a folder").flatten().next().expect("a file").path();
    std::fs::write(&file, "a.com\ndeny b com\n").expect("write");
    let place = format!("{}:2: ", file.display());
    world.cellblock("run -- true").fails(125).says(&place).says("hint:");
    world.cellblock("net allow c.com --save").fails(125).says(&place);
    world.cellblock("run --net none -- true").ok();
}

#[test]
fn a_proposal_is_a_file_of_rules() {
    let world = World::new();
    let file = audit("demo-main-sh");
    for name in ["a.all.example", "a.all.example", "b.all.example"] {
        append(&world, &file, &used(name, 443));
    }
    append(&world, &file, &denied("refused.example", 8443));
    append(
        &world,
        &file,
        &line("connect", "allow", "x", json!({"name": null, "address": "93.184.216.34", "port": 443})),
    );
    for n in 0..20 {
        let data = format!("3a7bd3e2360a3d29eea436fcfb7e4{n:03}.evil.example");
        append(&world, &file, &line("dns", "deny", &data, json!({})));
    }
    let text = world.cellblock("net suggest").ok();
    for part in [
        "\n# refused.example:8443  # once",
        "# WARNING: 20 names of evil.example: like a DNS tunnel",
        "# WARNING: 93.184.216.34/32:443",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    world.write("home/demo.rules", &text);
    let flags = format!("--no-default-allow --allow-file {}", world.path("home/demo.rules").display());
    let plan = world.cellblock(&format!("run --dry-run --json {flags} -- true")).ok();
    let plan: Value = serde_json::from_str(&plan).expect("json");
    let rules: Vec<_> = plan["cell"]["reach"]["allow"].as_array().expect("a list").iter().map(|s| &s["rule"]).collect();
    assert_eq!(rules, ["a.all.example:443", "b.all.example:443"]);
    let json: Value = serde_json::from_str(&world.cellblock("net suggest --json").ok()).expect("json");
    assert_eq!((&json["rules"][0]["times"], &json["denied"][0]["rule"]), (&json!(2), &json!("refused.example:8443")));
    assert!(world.cellblock("net suggest --since 1h").ok().contains("Nothing was used"));
}

#[test]
fn without_a_terminal_watching_is_following_refusals() {
    let world = World::new();
    append(&world, &audit("c"), &denied("before.example", 443));
    let mut child = world.cellblock("net watch c").start();
    std::thread::sleep(std::time::Duration::from_millis(500));
    append(&world, &audit("c"), &used("allowed.example", 443));
    append(&world, &audit("c"), &denied("one.example", 443));
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert!(line.contains("one.example:443") && !line.contains('\u{1b}'), "{line}");
    assert_eq!(child.wait().expect("its end").code(), Some(0));
}

/// Answers the question that shows `rule`. Keys that come at once with a question are not taken for an answer.
pub(crate) fn answer(tmux: &Tmux, rule: &str, key: &str) {
    tmux.see(&format!("? Allow {rule}"));
    tmux.pause();
    tmux.keys(&[key]);
}

#[test]
fn a_person_answers_refusals_with_a_key() {
    let world = World::new();
    let fake = Fake::new(&world, "c", obliging);
    let tmux = Tmux::new(&world);
    tmux.line(&world.shell_line("net watch"));
    tmux.see("Watching the cell c");
    for _ in 0..3 {
        append(&world, &audit("c"), &denied("one.example", 443));
    }
    append(&world, &audit("c"), &denied("two.example", 22));
    append(&world, &audit("c"), &denied("three.example", 443));
    append(&world, &audit("c"), &denied("four.example", 443));
    tmux.see("? Allow one.example:443, 3 times:");
    tmux.see("[o]nce (60 s) / this [c]ell / [a]lways / leave it [d]enied (3 more)");
    answer(&tmux, "one.example:443", "o");
    tmux.see("may now reach one.example:443 for 1m");
    answer(&tmux, "two.example:22", "x");
    // Of keys that come together only the first counts: an arrow is several bytes.
    tmux.pause();
    tmux.keys(&["c"]);
    answer(&tmux, "three.example:443", "a");
    answer(&tmux, "four.example:443", "d");
    tmux.see("Left denied: four.example:443");
    // What is allowed already was refused for another reason, which no rule mends; data in names is nothing to ask about.
    append(&world, &audit("c"), &denied("all.example", 443));
    append(&world, &audit("c"), &line("dns", "deny", "3a7bd3e2360a3d29eea436fcfb7e44c7.evil.example", json!({})));
    append(&world, &audit("c"), &denied("four.example", 443));
    append(&world, &audit("c"), &used("last.example", 443));
    tmux.see("last.example");
    assert!(tmux.screen().contains("data on its way out"), "{}", tmux.screen());
    tmux.pause();
    assert!(!tmux.screen().contains("? Allow"), "an answered question is taken away: {}", tmux.screen());
    assert!(!tmux.screen().trim_end().ends_with("[d]enied"), "{}", tmux.screen());
    assert_eq!(fake.changes(), ["allow one.example:443 60", "allow two.example:22", "allow three.example:443"]);
    assert!(kept(&world).starts_with("three.example:443  #"), "{}", kept(&world));
    tmux.keys(&["q"]);
    tmux.pause();
    tmux.line("echo over-$?");
    tmux.see("over-0");
}

#[test]
fn the_terminal_is_given_back_on_every_way_out() {
    let world = World::new();
    let _fake = Fake::new(&world, "c", obliging);
    let tmux = Tmux::new(&world);
    tmux.line("set -m; B=$(stty -g)");
    let settings = |how: &str| {
        tmux.pause();
        tmux.line("clear");
        tmux.line(&format!("[ \"$B\" = \"$(stty -g)\" ] && echo same-$((1+1))-{how}"));
        tmux.see(&format!("same-2-{how}"));
        tmux.line("clear");
        tmux.pause();
    };
    let watch = world.shell_line("net watch c").replace("&& env", "&& exec env").replacen("cd ", "(cd ", 1) + ")";
    let start = |tmux: &Tmux| {
        tmux.line(&watch);
        tmux.see("Watching the cell c");
    };
    for (key, code) in [("q", 0), ("C-c", 130), ("C-\\", 131)] {
        start(&tmux);
        append(&world, &audit("c"), &denied("one.example", 443));
        tmux.see("? Allow one.example");
        tmux.pause();
        tmux.keys(&[key]);
        tmux.pause();
        tmux.line("echo code-$?");
        tmux.see(&format!("code-{code}"));
        settings("key");
    }
    // Ctrl-Z gives it back for a while; after `fg` the question is there again, and can be answered.
    start(&tmux);
    append(&world, &audit("c"), &denied("one.example", 443));
    tmux.see("? Allow one.example");
    tmux.keys(&["C-z"]);
    tmux.see("Stopped");
    settings("stop");
    tmux.line("fg");
    answer(&tmux, "one.example", "d");
    tmux.see("Left denied");
    world.cellblock("stop c -t 0").ok();
    tmux.see("The cell c has ended");
    settings("end");
}

#[test]
fn a_real_cell_is_seen_and_steered() {
    let world = World::new();
    world.cellblock("run -d --name c --deny evil.example -- sleep 100").ok();
    let shown = world.cellblock("net show c").ok();
    assert!(shown.contains("default: @dev") && shown.contains("evil.example") && shown.contains("--deny"), "{shown}");
    let look = |name: &str| world.cellblock(&format!("exec c -- getent ahostsv4 {name}")).run().code();
    assert_ne!(look("steered.example"), Some(0));
    world.wait("the line", || world.cellblock("net log --denied c").ok().contains("look-up steered.example"));
    let log = world.cellblock("net log --denied c").ok();
    assert!(log.contains("(by getent["), "the program, whatever ids the cell has: {log}");
    world
        .cellblock("net allow steered.example --for 1h")
        .run()
        .says("The cell c may now reach steered.example for 1h.");
    assert_eq!(look("steered.example"), Some(0), "a name that is allowed has an address");
    let shown = world.cellblock("net show c").ok();
    let rule = shown.lines().find(|l| l.contains("steered.example")).expect("the rule").to_owned();
    assert!(rule.contains("net allow") && rule.contains("s more"), "{rule}");
    world.cellblock("net deny steered.example c --save").ok();
    assert_ne!(look("steered.example"), Some(0));
    world.cellblock("stop c -t 0").ok();
    // Ended, and still to be read; and what was kept counts for the next.
    let log = world.cellblock("net log c").ok();
    assert!(log.contains("rule: steered.example, by net deny"), "{log}");
    assert!(world.cellblock("net suggest c").ok().contains("# steered.example"));
    world.cellblock("run -d --name d --allow steered.example -- sleep 100").ok();
    let shown = world.cellblock("net show d").ok();
    assert!(shown.contains(".rules:1"), "{shown}");
    assert_ne!(world.cellblock("exec d -- getent ahostsv4 steered.example").run().code(), Some(0));
}

#[test]
fn a_proposal_from_real_use_is_enough_and_no_more() {
    let internet = Internet::new();
    let work = "print(get('www.wild.test')[:3], raw('allowed.test', 9000, b'hello\\n')[:5], tls('allowed.test', 'allowed.test')[:12])";
    let tries = "print(names('other.test'))\ntry:\n    print(get('private.test'))\nexcept OSError as e:\n    print(e)";
    let flags = "--name first --no-default-allow --allow *.wild.test --allow allowed.test:22,80,443,9000-9010 --allow private.test";
    let done = internet.python(flags, &format!("{work}\n{tries}"));
    assert!(done.contains("200 b'hello' HTTP/1.1 200"), "{done}");
    let text = internet.cellblock("net suggest first").ok();
    let rules: Vec<_> = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    assert_eq!(rules.len(), 2, "{text}");
    assert!(rules[0].starts_with("allowed.test:443,9000 ") && rules[1].starts_with("www.wild.test:80 "), "{text}");
    assert!(text.contains("\n# other.test "), "{text}");
    let private = text.lines().find(|l| l.starts_with("# private.test:80 ")).expect("a refusal for another reason");
    assert!(private.contains("private"), "{text}");

    internet.world.write("home/demo.rules", &text);
    let file = internet.world.path("home/demo.rules");
    let flags = format!("--name second --no-default-allow --allow-file {}", file.display());
    let done = internet.python(&flags, &format!("{work}\nprint(names('wild.test'), names('a.b.wild.test'))"));
    assert!(done.contains("200 b'hello' HTTP/1.1 200"), "what was used is enough: {done}");
    assert!(done.contains("no name no name"), "and no more than that: {done}");
}
