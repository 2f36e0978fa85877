//! What cellblock itself writes into files of an agent's, in the project's or the cell's folder, at each start: pure.
//!
//! The files are what a cell has made of them: their parsers limit how deep they go, and whoever reads them how long they may be.

mod says;

use cellblock_bundle::{Added, Edit};
use serde_json::Value;
use toml_edit::{DocumentMut, Item, TableLike};

/// The lines around a part of a text that is ours: comments in Markdown, which is what agents read.
const BEGIN: &str = "<!-- cellblock: written at each start, inside only -->";
const END: &str = "<!-- cellblock: end -->";

/// Largest TOML that is taken apart, in bytes: 14 MB took 6 s and more, at each start, and a cell may make it as large as it likes.
const MOST_TOML: usize = 1 << 20;

/// What a file is to hold, from what it holds now; nothing if it does already.
///
/// # Errors
/// In words, if what is there cannot be added to.
pub fn edited(now: &[u8], edits: &[Edit]) -> Result<Option<Vec<u8>>, &'static str> {
    let mut text = None;
    for edit in edits {
        let old = text.as_deref().unwrap_or(now);
        let new = match edit {
            Edit::Part { text } => part(old, text),
            Edit::Json(added) => json(old, added)?,
            Edit::Toml(added) => toml(old, added)?,
        };
        text = new.or(text);
    }
    Ok(text.filter(|text| text != now))
}

/// The text with our part as `text`, where it stands or at the end.
fn part(now: &[u8], text: &str) -> Option<Vec<u8>> {
    let mut lines = now.split_inclusive(|byte| *byte == b'\n').peekable();
    let is = |line: &[u8], mark: &str| line.trim_ascii() == mark.as_bytes();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let mut ours = (!text.is_empty()).then(|| format!("{BEGIN}\n{text}{end}{END}\n").into_bytes());
    let mut new = Vec::with_capacity(now.len() + ours.as_ref().map_or(0, Vec::len) + 1);
    while let Some(line) = lines.next() {
        if is(line, BEGIN) {
            // One whose end somebody has taken away is its first line only: what comes after it may be anybody's.
            let rest = lines.clone().take_while(|line| !is(line, BEGIN));
            if let Some(at) = rest.clone().position(|line| is(line, END)) {
                lines.by_ref().take(at + 1).for_each(drop);
            }
            new.extend(ours.take().unwrap_or_default());
        } else if !is(line, END) {
            new.extend_from_slice(line);
        }
    }
    if let Some(ours) = ours {
        if !new.is_empty() && !new.ends_with(b"\n") {
            new.push(b'\n');
        }
        new.extend(ours);
    }
    (new != now).then_some(new)
}

fn json(now: &[u8], added: &Added) -> Result<Option<Vec<u8>>, &'static str> {
    if says::says(now, &added.keys, added.over_false) {
        return Ok(None);
    }
    let mut value = if now.iter().all(u8::is_ascii_whitespace) {
        Value::Object(serde_json::Map::new())
    } else {
        serde_json::from_slice(now).ok().filter(Value::is_object).ok_or("it is no JSON object")?
    };
    if !add(&mut value, &added.keys, added.over_false) {
        return Ok(None);
    }
    serde_json::to_vec_pretty(&value).map(Some).map_err(|_| "it cannot be written as JSON")
}

/// Puts what is missing into place; false if nothing was.
fn add(into: &mut Value, from: &Value, over_false: bool) -> bool {
    let (Value::Object(into), Value::Object(from)) = (into, from) else { return false };
    let mut changed = false;
    for (key, value) in from {
        match into.get_mut(key) {
            None => {
                into.insert(key.clone(), value.clone());
                changed = true;
            }
            Some(old @ Value::Bool(false)) if over_false && *value == Value::Bool(true) => {
                *old = Value::Bool(true);
                changed = true;
            }
            Some(old) => changed |= add(old, value, over_false),
        }
    }
    changed
}

fn toml(now: &[u8], added: &Added) -> Result<Option<Vec<u8>>, &'static str> {
    if now.len() > MOST_TOML {
        return Err("it is larger than 1 MiB");
    }
    let text = std::str::from_utf8(now).map_err(|_| "it is no text")?;
    let mut document: DocumentMut = text.parse().map_err(|_| "it is no TOML")?;
    let changed = add_toml(document.as_table_mut(), &added.keys, added.over_false);
    Ok(changed.then(|| document.to_string().into_bytes()))
}

fn add_toml(into: &mut dyn TableLike, from: &Value, over_false: bool) -> bool {
    let Value::Object(from) = from else { return false };
    let mut changed = false;
    for (key, value) in from {
        match into.get_mut(key) {
            None => {
                // A key of nothing but tables needs no line of its own.
                if let Some(item) = toml_item(value) {
                    into.insert(key, item);
                    changed = true;
                }
            }
            Some(old) if over_false && *value == Value::Bool(true) && old.as_bool() == Some(false) => {
                *old = toml_edit::value(true);
                changed = true;
            }
            Some(old) => {
                if let Some(table) = old.as_table_like_mut() {
                    changed |= add_toml(table, value, over_false);
                }
            }
        }
    }
    changed
}

fn toml_item(value: &Value) -> Option<Item> {
    match value {
        Value::Bool(truth) => Some(toml_edit::value(*truth)),
        Value::String(text) => Some(toml_edit::value(text)),
        Value::Number(number) => Some(toml_edit::value(number.as_i64()?)),
        Value::Object(keys) => {
            let mut table = toml_edit::Table::new();
            table.set_implicit(keys.values().all(Value::is_object));
            for (key, value) in keys {
                table.insert(key, toml_item(value)?);
            }
            Some(Item::Table(table))
        }
        // Nothing that is shipped needs these.
        Value::Null | Value::Array(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(now: &str, edit: Edit) -> String {
        let edits = [edit];
        let new = edited(now.as_bytes(), &edits).expect("it can be edited").expect("something to do");
        assert_eq!(edited(&new, &edits), Ok(None), "the second time there is nothing to do");
        String::from_utf8(new).expect("text")
    }

    fn added(keys: Value) -> Added {
        Added { keys, over_false: false }
    }

    #[test]
    fn a_part_of_a_text_is_replaced_and_goes_again() {
        let part = |text: &str| Edit::Part { text: text.into() };
        let block = |text: &str| format!("{BEGIN}\n{text}\n{END}\n");
        assert_eq!(after("", part("@/x")), block("@/x"));
        assert_eq!(after("words", part("@/x\n")), format!("words\n{}", block("@/x")));
        // Where it stands, and all of them.
        let old = format!("a\n{}b\n{}c", block("one\ntwo"), block("three"));
        assert_eq!(after(&old, part("new")), format!("a\n{}b\nc", block("new")));
        assert_eq!(after(&old, part("")), "a\nb\nc");
        assert_eq!(edited(b"words", &[part("")]), Ok(None));
        assert_eq!(edited(b"", &[part("")]), Ok(None));
        // What stands after a beginning without an end is kept.
        assert_eq!(after(&format!("a\n{BEGIN}\r\nb\n"), part("new")), format!("a\n{}b\n", block("new")));
        assert_eq!(after(&format!("{BEGIN}\nb\n{}", block("c")), part("new")), format!("{}b\n", block("new")));
        assert_eq!(after(&format!("a\n{END}\nb\n"), part("")), "a\nb\n");
    }

    /// Every order of up to six lines, marks among them.
    #[test]
    fn whatever_marks_there_are_the_second_time_there_is_nothing_to_do() {
        let lines = ["", "a", BEGIN, END];
        for number in 0..4_usize.pow(6) {
            let all: Vec<&str> = (0..6).map(|at| lines[number / 4_usize.pow(at) % 4]).collect();
            let old = all.join("\n");
            for text in ["new", ""] {
                let edits = [Edit::Part { text: text.into() }];
                let new = edited(old.as_bytes(), &edits).expect("a text").unwrap_or_else(|| old.clone().into_bytes());
                assert_eq!(edited(&new, &edits), Ok(None), "{old:?}");
                let new = String::from_utf8(new).expect("text");
                assert_eq!(new.matches(BEGIN).count(), text.len().min(1), "{old:?}");
                // What is in no part of ours is there as before.
                let count = |text: &str| text.lines().filter(|line| *line == "a").count();
                let outside = all.iter().enumerate().filter(|(at, line)| {
                    let open = all[..*at].iter().rposition(|line| *line == BEGIN || *line == END);
                    let shut = all[*at..].iter().find(|line| **line == BEGIN || **line == END);
                    **line == "a" && !(open.is_some_and(|open| all[open] == BEGIN) && shut == Some(&END))
                });
                assert_eq!(count(&new), outside.count(), "{old:?}");
            }
        }
    }

    #[test]
    fn keys_are_added_and_what_was_said_stays() {
        let keys = serde_json::json!({"done": true, "theme": "dark", "projects": {"/p": {"trust": true}}});
        let edit = || Edit::Json(added(keys.clone()));
        let old = r#"{"mine": 1, "theme": null, "done": false, "projects": {"/p": {"n": 2}, "/q": {}}}"#;
        let value: Value = serde_json::from_str(&after(old, edit())).expect("JSON");
        let mut want = serde_json::json!(
            {"mine": 1, "theme": null, "done": false, "projects": {"/p": {"n": 2, "trust": true}, "/q": {}}}
        );
        assert_eq!(value, want);
        want["done"] = true.into();
        let over = after(old, Edit::Json(Added { over_false: true, ..added(keys.clone()) }));
        assert_eq!(serde_json::from_str::<Value>(&over).expect("JSON"), want);
        assert!(after(" \n", edit()).contains("done"));
        // No object where one is expected: the person's word.
        assert!(!after(r#"{"projects": 1}"#, edit()).contains("trust"));
        // What is read past says the same as what is taken apart.
        for text in [
            r#"{"a":{"b":1}}"#,
            r#"{"a":{"b":false}}"#,
            r#"{"a":[{"b":0}]}"#,
            r#"{"a":null}"#,
            r#"{"a":{}}"#,
            r#"{"b":{"b":1}}"#,
            r#"{"a":false}"#,
        ] {
            for (keys, over_false) in
                [(serde_json::json!({"a": {"b": true}}), true), (serde_json::json!({"a": true}), false)]
            {
                let mut value: Value = serde_json::from_str(text).expect("JSON");
                assert_eq!(
                    says::says(text.as_bytes(), &keys, over_false),
                    !add(&mut value, &keys, over_false),
                    "{text} {keys}"
                );
            }
        }
        for bad in ["[1]", "{\"done\":true,\"theme\":1,\"projects\":1} x", "{\"half", "text", &"[".repeat(100_000)] {
            assert!(edited(bad.as_bytes(), &[edit()]).is_err(), "{bad:.20}");
        }
    }

    #[test]
    fn a_toml_file_stays_as_it_was_written() {
        let edit = || Edit::Toml(added(serde_json::json!({"projects": {"/a b.c": {"trust_level": "trusted"}}})));
        let line = "[projects.\"/a b.c\"]\ntrust_level = \"trusted\"\n";
        assert_eq!(after("", edit()), line);
        assert_eq!(after("# mine\nmodel = 'x' # this\n", edit()), format!("# mine\nmodel = 'x' # this\n\n{line}"));
        for said in [
            "[projects.'/a b.c']\ntrust_level = 'untrusted'\n",
            "projects = { '/a b.c' = { trust_level = 'untrusted' } }\n",
            "projects.\"/a b.c\".trust_level = 'untrusted'\n",
            "projects = 1\n",
        ] {
            assert_eq!(edited(said.as_bytes(), &[edit()]), Ok(None), "{said}");
        }
        for other in ["projects = { '/q' = {} }\n", "[projects]\n", "projects.'/q'.trust_level = 'x'\n[tui]\na = 1\n"] {
            let new: DocumentMut = after(other, edit()).parse().unwrap_or_else(|e| panic!("{other}: {e}"));
            assert_eq!(new["projects"]["/a b.c"]["trust_level"].as_str(), Some("trusted"), "{other}");
        }
        let over = Edit::Toml(Added { over_false: true, ..added(serde_json::json!({"a": {"b": true}})) });
        assert_eq!(after("[a]\nb = false\n", over), "[a]\nb = true\n");
        for bad in ["[half", "a = ", "\u{feff}=", &"a=[".repeat(100_000)] {
            assert!(edited(bad.as_bytes(), &[edit()]).is_err(), "{bad:.20}");
        }
        assert!(edited(b"\xff", &[edit()]).is_err());
        // What a cell has made large holds no start up.
        let large = |length: usize| format!("{}\n", "#".repeat(length - 1));
        assert!(edited(large(MOST_TOML).as_bytes(), &[edit()]).is_ok_and(|new| new.is_some()));
        assert_eq!(edited(large(MOST_TOML + 1).as_bytes(), &[edit()]), Err("it is larger than 1 MiB"));
    }
}
