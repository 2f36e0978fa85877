use super::*;

fn lines(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).expect("the file");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn denial(name: &str) -> Line {
    Line { name: Some(name.to_owned()), ..Line::new(Event::Dns, Verdict::Deny) }
}

#[test]
fn whatever_a_name_holds_a_line_is_one_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.jsonl");
    let mut audit = Audit::open(&path).expect("a file");
    audit.line(denial("a\n{\"verdict\":\"allow\"}\u{1b}[2J\u{2028}")).expect("written");
    let text = std::fs::read_to_string(&path).expect("the file");
    assert_eq!(text.matches('\n').count(), 1);
    assert!(!text.contains('\u{1b}'));
    assert_eq!(lines(&path).len(), 1);
}

#[test]
fn a_flood_is_counted_and_not_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.jsonl");
    let mut audit = Audit::open(&path).expect("a file");
    for _ in 0..50_000 {
        audit.line(denial("same.example")).expect("written");
    }
    for number in 0..50_000 {
        audit.line(denial(&format!("n{number}.example"))).expect("written");
    }
    drop(audit);
    let lines = lines(&path);
    assert!(lines.len() < 5_000, "{}", lines.len());
    let told: u64 = lines.iter().map(|line| line.count.unwrap_or(1)).sum();
    assert_eq!(told, 100_000, "every decision is in the sum");
}

#[test]
fn what_is_allowed_is_written_each_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.jsonl");
    let mut audit = Audit::open(&path).expect("a file");
    for id in 0..3 {
        audit.line(Line { id: Some(id), ..Line::new(Event::Connect, Verdict::Allow) }).expect("written");
    }
    assert_eq!(lines(&path).len(), 3);
}

#[test]
fn a_flood_of_what_is_allowed_pushes_nothing_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.jsonl");
    let mut audit = Audit::open(&path).expect("a file");
    let request = |name: &str, number: u32| Line {
        name: Some(name.to_owned()),
        path: Some(format!("/{number}")),
        ..Line::new(Event::Request, Verdict::Allow)
    };
    for number in 0..50_000 {
        audit.line(request("busy.example", number)).expect("written");
    }
    audit.line(request("other.example", 1)).expect("written");
    drop(audit);
    let lines = lines(&path);
    assert!(lines.len() < 5000, "{}", lines.len());
    assert!(lines.iter().any(|line| line.name.as_deref() == Some("other.example")), "others are told all the same");
    let told: u64 = lines.iter().map(|line| line.count.unwrap_or(1)).sum();
    assert_eq!(told, 50_001);
}

#[test]
fn a_full_file_makes_way() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.jsonl");
    std::fs::write(&path, vec![b'\n'; usize::try_from(MAX_FILE).expect("small")]).expect("a full file");
    let mut audit = Audit::open(&path).expect("a file");
    audit.line(denial("late.example")).expect("written");
    assert_eq!(lines(&path).len(), 1);
    assert!(dir.path().join("a.jsonl.1").exists());
}

#[test]
fn what_is_too_long_is_cut_and_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.jsonl");
    let mut audit = Audit::open(&path).expect("a file");
    for (letter, count) in [("a", 1000), ("\u{9b}", 5000)] {
        let line = Line { path: Some(letter.repeat(count)), ..Line::new(Event::Request, Verdict::Allow) };
        audit.line(line).expect("written");
    }
    let text = std::fs::read_to_string(&path).expect("text");
    let paths: Vec<String> =
        text.lines().map(|line| serde_json::from_str::<Line>(line).expect("a line").path.expect("a path")).collect();
    assert_eq!(paths[0], "a".repeat(1000));
    assert!(paths[1].len() < 1100 && paths[1].ends_with("\u{9b}… (10000 bytes)"), "{}", paths[1]);
}
