use super::*;

struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("a folder");
    Place { path: dir.path().join("rules/0123.rules"), _dir: dir }
}

fn entry(text: &str) -> Entry {
    text.parse().expect("a rule")
}

fn rules(written: &[Written]) -> Vec<String> {
    written.iter().map(|w| w.entry.to_string()).collect()
}

#[test]
fn what_is_kept_is_read_back_with_its_place() {
    let Place { path, _dir } = place();
    assert_eq!(saved_rules(&path).expect("no file"), Saved::default());
    for rule in
        ["example.com:443", "*.example.org", "GET https://pypi.org/simple/**", "@npm", "db.corp.example private"]
    {
        assert_eq!(keep(&path, Kind::Allow, &entry(rule)).expect("kept"), Kept::New);
    }
    assert_eq!(keep(&path, Kind::Deny, &entry("evil.com")).expect("kept"), Kept::New);
    let saved = saved_rules(&path).expect("rules");
    assert_eq!(
        rules(&saved.allow),
        ["example.com:443", "*.example.org", "GET https://pypi.org/simple/**", "@npm", "db.corp.example private"]
    );
    assert_eq!(rules(&saved.deny), ["evil.com"]);
    assert_eq!(saved.deny[0].origin, format!("{}:6", path.display()));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_rule_is_kept_once_and_turned_around() {
    let Place { path, _dir } = place();
    let rule = entry("example.com");
    assert_eq!(keep(&path, Kind::Allow, &rule).expect("kept"), Kept::New);
    assert_eq!(keep(&path, Kind::Allow, &entry("EXAMPLE.com.")).expect("kept"), Kept::Already);
    assert_eq!(keep(&path, Kind::Deny, &rule).expect("kept"), Kept::Turned);
    let saved = saved_rules(&path).expect("rules");
    assert_eq!((rules(&saved.allow), rules(&saved.deny)), (vec![], vec!["example.com".to_owned()]));
    assert_eq!(forget(&path, &rule).expect("gone"), 1);
    assert_eq!(forget(&path, &rule).expect("gone"), 0);
    assert_eq!(saved_rules(&path).expect("rules"), Saved::default());
}

#[test]
fn a_persons_own_lines_stay() {
    let Place { path, _dir } = place();
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    std::fs::write(&path, "# mine\n\n  a.com   # why\ndeny\tb.com\nallow.com").expect("write");
    keep(&path, Kind::Allow, &entry("c.com")).expect("kept");
    assert_eq!(forget(&path, &entry("allow.com")).expect("gone"), 1);
    let text = std::fs::read_to_string(&path).expect("text");
    assert!(text.starts_with("# mine\n\n  a.com   # why\ndeny\tb.com\nc.com  # 2"), "{text}");
    assert_eq!(rules(&saved_rules(&path).expect("rules").deny), ["b.com"]);
}

#[test]
fn a_host_with_the_name_of_the_word_is_allowed_and_not_denied() {
    let Place { path, _dir } = place();
    for rule in ["deny", "deny private", "deny:22", "deny.example.com"] {
        keep(&path, Kind::Allow, &entry(rule)).expect("kept");
    }
    let saved = saved_rules(&path).expect("rules");
    assert_eq!(rules(&saved.allow), ["deny", "deny private", "deny:22", "deny.example.com"]);
    assert!(saved.deny.is_empty());
}

#[test]
fn an_unreadable_line_is_an_error_with_its_place_and_nothing_is_changed() {
    for (line, said) in [
        ("*.com", "at least two labels"),
        ("deny", "a rule is missing"),
        ("@nowhere", "there is no set"),
        ("deny GET https://a.com/x", "not about single requests"),
        ("allow a.com", "none of the words"),
        ("a.com, b.com", "cannot stand in a host name"),
    ] {
        let Place { path, _dir } = place();
        let old = format!("a.com\n{line}\n");
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, &old).expect("write");
        let error = saved_rules(&path).expect_err(line).to_string();
        assert!(error.contains(&format!("{}:2: ", path.display())) && error.contains(said), "{error}");
        if said.contains("words") {
            assert!(keep(&path, Kind::Deny, &entry("b.com")).is_err());
            assert_eq!(std::fs::read_to_string(&path).expect("text"), old);
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_not_taken_for_none() {
    let Place { path, _dir } = place();
    std::fs::create_dir_all(&path).expect("a folder in its place");
    assert!(matches!(saved_rules(&path), Err(SavedError::Io { .. })));
    std::fs::remove_dir(&path).expect("empty");
    std::fs::write(&path, b"a.com\n\xff\n").expect("write");
    assert!(matches!(saved_rules(&path), Err(SavedError::Io { .. })));
}

#[test]
fn many_who_keep_at_once_lose_nothing() {
    let Place { path, _dir } = place();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let path = &path;
            scope.spawn(move || keep(path, Kind::Allow, &entry(&format!("n{n}.example.com"))).expect("kept"));
        }
    });
    assert_eq!(saved_rules(&path).expect("rules").allow.len(), 8);
}
