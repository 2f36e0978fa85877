//! What cellblock itself writes into files of an agent's, in the project's or the cell's folder, at each start: pure.

use cellblock_bundle::Edit;
use serde_json::Value;

/// What a file is to hold, from what it holds now; nothing if it does already.
///
/// # Errors
/// In words, if what is there cannot be added to.
pub(super) fn edited(now: &[u8], edit: &Edit) -> Result<Option<Vec<u8>>, &'static str> {
    let has = |text: &str| text.is_empty() || now.windows(text.len()).any(|part| part == text.as_bytes());
    let end = |first: &[u8]| if first.is_empty() || first.ends_with(b"\n") { "" } else { "\n" };
    match edit {
        Edit::Begin { text } if has(text) => Ok(None),
        Edit::Begin { text } => Ok(Some([text.as_bytes(), end(text.as_bytes()).as_bytes(), now].concat())),
        Edit::End { unless, .. } if !now.is_empty() && has(unless) => Ok(None),
        Edit::End { text, .. } => Ok(Some([now, end(now).as_bytes(), text.as_bytes()].concat())),
        Edit::Json { merge } => {
            let empty = now.iter().all(u8::is_ascii_whitespace);
            let old: Value = if empty { Value::Object(serde_json::Map::new()) } else { parse(now)? };
            let mut new = old.clone();
            merged(&mut new, merge);
            if new == old {
                return Ok(None);
            }
            serde_json::to_vec_pretty(&new).map(Some).map_err(|_| "it cannot be written as JSON")
        }
    }
}

fn parse(now: &[u8]) -> Result<Value, &'static str> {
    match serde_json::from_slice(now) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err("it is no JSON object"),
    }
}

/// Objects are merged key by key, everything else is replaced.
fn merged(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merged(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => into.clone_from(from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(now: &str, edit: &Edit) -> String {
        let new = edited(now.as_bytes(), edit).expect("it can be edited").expect("something to do");
        assert_eq!(edited(&new, edit), Ok(None), "the second time there is nothing to do");
        String::from_utf8(new).expect("text")
    }

    #[test]
    fn lines_at_the_beginning_and_the_end() {
        let begin = Edit::Begin { text: "@/etc/x.md".into() };
        assert_eq!(after("", &begin), "@/etc/x.md\n");
        assert_eq!(after("words\n", &begin), "@/etc/x.md\nwords\n");
        let end = Edit::End { text: "[a]\nb = 1\n".into(), unless: "[a]".into() };
        assert_eq!(after("c = 2", &end), "c = 2\n[a]\nb = 1\n");
        assert_eq!(after("", &end), "[a]\nb = 1\n");
        assert_eq!(edited(b"[a]\nb = 0", &end), Ok(None), "the person's word stays");
    }

    #[test]
    fn keys_are_merged_and_others_stay() {
        let merge = Edit::Json { merge: serde_json::json!({"done": true, "projects": {"/p": {"trust": true}}}) };
        let text = after("{\"mine\": 1, \"projects\": {\"/p\": {\"n\": 2}, \"/q\": {}}}", &merge);
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let want = serde_json::json!({"mine": 1, "done": true, "projects": {"/p": {"n": 2, "trust": true}, "/q": {}}});
        assert_eq!(value, want);
        assert!(after(" \n", &merge).contains("done"));
        for bad in ["[1]", "{\"half", "text"] {
            assert!(edited(bad.as_bytes(), &merge).is_err(), "{bad}");
        }
    }
}
