use std::fs::OpenOptions;
use std::io::Write;

use cellblock_egress::audit::{Event, Verdict};

use super::*;

fn line(name: &str) -> String {
    let line = Line { name: Some(name.into()), ..Line::new(Event::Dns, Verdict::Deny) };
    serde_json::to_string(&line).expect("json")
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("open");
    file.write_all(text.as_bytes()).expect("write");
}

fn names(tail: &mut Tail) -> Vec<String> {
    let mut all = Vec::new();
    tail.more(|entry| {
        all.push(match entry {
            Entry::Line(line) => line.name.unwrap_or_default(),
            Entry::Unreadable => "?".to_owned(),
        });
        Ok(true)
    })
    .expect("reading");
    all
}

struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("a folder");
    Place { path: dir.path().join("c.jsonl"), _dir: dir }
}

fn rotate(path: &Path) {
    std::fs::rename(path, older(path)).expect("rename");
}

#[test]
fn what_is_added_is_read_once() {
    let Place { path, _dir } = place();
    let mut tail = Tail::from_start(&path).expect("open");
    assert!(!tail.is_there());
    assert!(names(&mut tail).is_empty());
    append(&path, &format!("{}\n{}", line("a"), &line("b")[..20]));
    assert_eq!(names(&mut tail), ["a"]);
    append(&path, &format!("{}\n", &line("b")[20..]));
    assert_eq!(names(&mut tail), ["b"]);
    assert!(names(&mut tail).is_empty());
    let mut late = Tail::from_end(&path).expect("open");
    assert!(names(&mut late).is_empty());
    append(&path, &(line("c") + "\n"));
    assert_eq!((names(&mut late), names(&mut tail)), (vec!["c".to_owned()], vec!["c".to_owned()]));
}

#[test]
fn a_renaming_loses_nothing() {
    let Place { path, _dir } = place();
    append(&path, &(line("old") + "\n"));
    rotate(&path);
    append(&path, &(line("a") + "\n"));
    let mut tail = Tail::from_start(&path).expect("open");
    assert_eq!(names(&mut tail), ["old", "a"], "the older file first");
    append(&path, &(line("b") + "\n"));
    rotate(&path);
    assert_eq!(names(&mut tail), ["b"], "no new file yet");
    append(&path, &(line("c") + "\n"));
    assert_eq!(names(&mut tail), ["c"]);
    // Twice between two looks.
    append(&path, &(line("d") + "\n"));
    rotate(&path);
    append(&path, &(line("e") + "\n"));
    rotate(&path);
    append(&path, &(line("f") + "\n"));
    assert_eq!(names(&mut tail), ["d", "e", "f"]);
}

#[test]
fn an_emptied_file_is_read_from_its_start() {
    let Place { path, _dir } = place();
    append(&path, &format!("{}\n{}\n", line("a"), line("b")));
    let mut tail = Tail::from_start(&path).expect("open");
    assert_eq!(names(&mut tail), ["a", "b"]);
    std::fs::write(&path, line("c") + "\n").expect("write");
    assert_eq!(names(&mut tail), ["c"]);
}

#[test]
fn damage_costs_one_line() {
    let Place { path, _dir } = place();
    append(&path, &format!("no line\n{}{}\n{}\n", &line("lost")[..30], line("a"), line("b")));
    append(&path, "\u{0}\n[]\n{}\n");
    let mut tail = Tail::from_start(&path).expect("open");
    assert_eq!(names(&mut tail), ["?", "a", "b", "?", "?", "?"]);
}

#[test]
fn a_text_within_a_line_is_not_taken_for_one() {
    let inner = line("inner");
    let outer = Line { why: Some(inner.clone()), ..Line::new(Event::Dns, Verdict::Allow) };
    let text = serde_json::to_string(&outer).expect("json");
    assert_eq!(parse(text.as_bytes()), Entry::Line(Box::new(outer)));
    assert_eq!(parse(&text.as_bytes()[1..]), Entry::Unreadable);
}

#[test]
fn reading_stops_when_there_is_enough() {
    let Place { path, _dir } = place();
    append(&path, &format!("{}\n{}\n", line("a"), line("b")));
    let mut tail = Tail::from_start(&path).expect("open");
    assert!(!tail.more(|_| Ok(false)).expect("reading"));
}
