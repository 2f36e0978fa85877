//! Status for workmux, a manager of worktrees in tmux: what hooks of an agent in the cell tell it, told to the real one outside.
//!
//! Two verbs pass, `register-agent` and `set-window-status STATUS`, and of what a hook gets as its input three texts: the session's name, and
//! the prompt that the person gave. The input for the real program is written anew from them. It runs in `/`, so that no settings of a project's
//! count for it, and for the pane in which the cell was started: nothing that the cell says names another one.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cellblock_egress::audit::is_hidden;

use crate::child;
use crate::settings::Settings;

/// Longest name of a session in bytes; they are UUIDs.
const MAX_SESSION: usize = 128;

/// As much of a prompt as workmux keeps, in characters.
const MAX_PROMPT: usize = 500;

/// How many wait for their turn; of more the oldest are forgotten.
const WAITING: usize = 8;

/// How long the real program may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The least between two of its starts.
const PAUSE: Duration = Duration::from_millis(100);

/// What workmux is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// An agent has begun.
    Register,
    /// What it does now: one of [`STATUS`].
    Status(&'static str),
}

/// The statuses there are.
pub const STATUS: &[&str] = &["working", "waiting", "done", "clear"];

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What.
    pub verb: Verb,
    /// What is known of the session.
    pub hook: Hook,
}

/// What passes of a hook's input.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Hook {
    /// The session's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// What the person asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What the person asked at the session's begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_prompt: Option<String>,
}

/// Reads a line of the shim's, `workmux VERB [STATUS] INPUT`, behind its first word; `INPUT` is the begin of a hook's input in Base64, or `-`.
#[must_use]
pub fn told(words: &[u8]) -> Option<Told> {
    let mut words = std::str::from_utf8(words).ok()?.split(' ');
    let verb = match words.next()? {
        "register-agent" => Verb::Register,
        "set-window-status" => {
            let word = words.next()?;
            Verb::Status(STATUS.iter().find(|status| **status == word)?)
        }
        _ => return None,
    };
    let input = words.next()?;
    if words.next().is_some() {
        return None;
    }
    let hook = if input == "-" { Hook::default() } else { hook(&STANDARD.decode(input).ok()?) };
    Some(Told { verb, hook })
}

/// Reads a hook's input as far as it goes: it may end anywhere.
#[must_use]
pub fn hook(input: &[u8]) -> Hook {
    let mut hook = Hook::default();
    let mut delegated = false;
    let mut members = Members::of(input);
    while let Some((key, value)) = members.next() {
        match key.as_str() {
            "session_id" => hook.session_id = Some(value).filter(|name| !members.cut && is_session(name)),
            "prompt" => hook.prompt = line(&value),
            "initialPrompt" | "initial_prompt" => hook.initial_prompt = line(&value),
            // What another agent asked is no prompt of the person's.
            "agent_id" | "subagentType" => delegated |= !value.is_empty(),
            _ => {}
        }
    }
    if delegated { Hook { session_id: hook.session_id, ..Hook::default() } } else { hook }
}

/// It may become an argument of the agent's.
fn is_session(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=MAX_SESSION).contains(&name.len()) && name.bytes().all(fine) && !name.starts_with(['-', '.'])
}

/// A text as a single line that no terminal takes for a command; none if nothing is left.
fn line(text: &str) -> Option<String> {
    let plain: String = text.chars().map(|c| if is_hidden(c) { ' ' } else { c }).collect();
    let line: String = plain.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_PROMPT).collect();
    (!line.is_empty()).then_some(line)
}

/// The members of a JSON object whose values are strings, in their order, as far as the text goes.
struct Members<'a> {
    text: &'a [u8],
    /// The last string was cut off.
    cut: bool,
}

impl<'a> Members<'a> {
    fn of(text: &'a [u8]) -> Self {
        let text = text.trim_ascii_start();
        Self { text: text.strip_prefix(b"{").unwrap_or_default(), cut: false }
    }

    fn skip(&mut self) -> Option<u8> {
        self.text = self.text.trim_ascii_start();
        self.text.first().copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.skip().filter(|found| *found == byte)?;
        self.text = self.text.get(1..)?;
        Some(())
    }

    /// A string; one that is cut off counts as far as it goes.
    fn string(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut escaped = false;
        let end = self.text.iter().position(|byte| match byte {
            _ if escaped => {
                escaped = false;
                false
            }
            b'\\' => {
                escaped = true;
                false
            }
            byte => *byte == b'"',
        });
        let (body, rest) = self.text.split_at(end.unwrap_or(self.text.len()));
        self.text = rest.get(1..).unwrap_or_default();
        self.cut = end.is_none();
        if self.cut {
            return Some(cut(body));
        }
        // A whole one is read by whoever knows all about them.
        serde_json::from_slice(&[b"\"", body, b"\""].concat()).ok()
    }

    /// Leaves out a value that is no string.
    fn leave_out(&mut self) -> Option<()> {
        let mut depth = 0u32;
        loop {
            match self.skip()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth = depth.checked_add(1)?;
                    self.text = self.text.get(1..)?;
                }
                b'}' | b']' | b',' if depth == 0 => return Some(()),
                b'}' | b']' => {
                    depth -= 1;
                    self.text = self.text.get(1..)?;
                }
                _ => self.text = self.text.get(1..)?,
            }
        }
    }

    fn member(&mut self) -> Option<(String, Option<String>)> {
        let key = self.string()?;
        self.take(b':')?;
        let value = if self.skip()? == b'"' {
            Some(self.string()?)
        } else {
            self.leave_out()?;
            None
        };
        // Whatever else stands here ends the reading with the next member.
        let _ = self.take(b',');
        Some((key, value))
    }
}

impl Iterator for Members<'_> {
    type Item = (String, String);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let (key, Some(value)) = self.member()? {
                return Some((key, value));
            }
        }
    }
}

/// What can be read of a string that is cut off: up to its first escape that is no simple one.
fn cut(body: &[u8]) -> String {
    let mut text = Vec::new();
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(b'n' | b't' | b'r') => text.push(b' '),
                Some(byte @ (b'"' | b'\\' | b'/')) => text.push(*byte),
                _ => break,
            },
            byte => text.push(*byte),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What waits to be told, and whether somebody tells it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting(Arc<Mutex<(VecDeque<Told>, bool)>>);

impl Waiting {
    /// Adds one; true if nobody tells what waits, so that the caller has to have it done.
    pub(crate) fn add(&self, told: Told) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the last status counts, unless a prompt would be lost.
        let replaced = |old: &Told| {
            matches!((old.verb, told.verb), (Verb::Status(_), Verb::Status(_))) && old.hook.prompt.is_none()
        };
        if waiting.0.back().is_some_and(replaced) {
            waiting.0.pop_back();
        }
        if waiting.0.len() >= WAITING {
            waiting.0.pop_front();
        }
        waiting.0.push_back(told);
        !std::mem::replace(&mut waiting.1, true)
    }

    /// Tells the program `workmux` everything that waits, one after the other.
    pub(crate) fn tell(&self, workmux: &Path, settings: &Settings) {
        loop {
            let told = {
                let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                match waiting.0.pop_front() {
                    Some(told) => told,
                    None => {
                        waiting.1 = false;
                        return;
                    }
                }
            };
            run(&told, workmux, settings);
            std::thread::sleep(PAUSE);
        }
    }

    /// Nobody can tell it: the next one tries again.
    pub(crate) fn give_up(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = false;
    }
}

/// What it answers is for nobody: hooks do not look at it either.
fn run(told: &Told, workmux: &Path, settings: &Settings) {
    let Some(program) = workmux.to_str() else { return };
    let mut command = child::command(program, settings);
    match told.verb {
        Verb::Register => command.arg("register-agent"),
        Verb::Status(status) => command.args(["set-window-status", status]),
    };
    // By these a hook of a background session of the person's own, or another pane, would be meant.
    for name in ["CLAUDE_JOB_DIR", "WORKMUX_STATUS_BACKEND", "WORKMUX_STATUS_INSTANCE", "WORKMUX_STATUS_PANE_ID"] {
        command.env_remove(name);
    }
    let input = serde_json::to_vec(&told.hook).unwrap_or_default();
    let _ = child::run(command, &input, 64 << 10, PATIENCE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str, input: &str) -> Option<Told> {
        told(format!("{words} {}", STANDARD.encode(input)).as_bytes())
    }

    #[test]
    fn two_verbs_pass_and_nothing_else() {
        assert_eq!(told(b"register-agent -").map(|told| told.verb), Some(Verb::Register));
        for status in STATUS {
            let told = told(format!("set-window-status {status} -").as_bytes()).expect("a status");
            assert_eq!((told.verb, told.hook), (Verb::Status(status), Hook::default()));
        }
        for words in [
            "",
            "register-agent",
            "register-agent  -",
            "register-agent - -",
            "register-agent --help -",
            "register-agent !",
            "set-window-status -",
            "set-window-status idle -",
            "set-window-status Working -",
            "set-window-status working",
            "set-window-status working - -",
            "set-window-status --help -",
            "merge -",
            "remove x -",
            "run x -",
            "send-keys -",
            "set-window-status\tworking -",
            "-h -",
        ] {
            assert_eq!(told(words.as_bytes()), None, "{words}");
        }
        assert_eq!(told(b"register-agent \xff"), None);
    }

    #[test]
    fn three_texts_of_a_hook_pass_and_nothing_else() {
        let input = r#"{"session_id":"01a-b","transcript_path":"/etc/shadow","cwd":"/x","tool_input":{"prompt":"no","a":["}",1]},"n":-1.5e3,"t":true,"prompt":"do \"it\"\n\u001b[31m now\u202e","z":null}"#;
        let told = of("set-window-status working", input).expect("told");
        let want =
            Hook { session_id: Some("01a-b".into()), prompt: Some("do \"it\" [31m now".into()), initial_prompt: None };
        assert_eq!(told.hook, want);
        assert_eq!(
            serde_json::to_string(&want).expect("JSON"),
            r#"{"session_id":"01a-b","prompt":"do \"it\" [31m now"}"#
        );
        let initial = of("register-agent", r#"{ "initialPrompt" : "first" , "session_id" : "s" }"#).expect("told");
        assert_eq!(initial.hook.initial_prompt.as_deref(), Some("first"));
        let delegated = hook(br#"{"session_id":"s","prompt":"x","agent_id":"a"}"#);
        assert_eq!(delegated, Hook { session_id: Some("s".into()), ..Hook::default() });
        for name in ["", "-rf", "..", "a b", "a;b", "$(id)", "../x", "a\nb", &"a".repeat(129)] {
            let text = serde_json::to_string(&serde_json::json!({"session_id": name})).expect("JSON");
            assert_eq!(hook(text.as_bytes()), Hook::default(), "{name}");
        }
    }

    #[test]
    fn what_is_cut_off_counts_as_far_as_it_goes() {
        let whole = r#"{"session_id":"abc","hook":{"x":[1,2]},"prompt":"one two\nthree \u00e4 four"}"#;
        for end in 0..whole.len() {
            let hook = hook(&whole.as_bytes()[..end]);
            if let Some(prompt) = &hook.prompt {
                assert!("one two three ä four".starts_with(prompt.as_str()), "{prompt}");
            }
            assert!(hook.session_id.is_none_or(|name| name == "abc"));
        }
        assert_eq!(hook(&whole.as_bytes()[..whole.find("\\n").expect("there")]).prompt.as_deref(), Some("one two"));
        assert_eq!(hook(whole.as_bytes()).prompt.as_deref(), Some("one two three ä four"));
        let long = format!("{{\"prompt\":\"{}", "ä".repeat(2000));
        assert_eq!(hook(long.as_bytes()).prompt.map(|prompt| prompt.chars().count()), Some(MAX_PROMPT));
        for odd in
            ["", "null", "[]", "{", "{\"", "{\"a\"", "{\"a\":", "{a:1}", "{\"a\" \"b\"}", "{}}", "{\"prompt\":1}"]
        {
            assert_eq!(hook(odd.as_bytes()), Hook::default(), "{odd}");
        }
        assert_eq!(hook(&[b"{\"a\":".as_slice(), &b"[".repeat(100_000)].concat()), Hook::default());
    }

    #[test]
    fn of_many_statuses_the_last_counts() {
        let status = |word| told(format!("set-window-status {word} -").as_bytes()).expect("a status");
        let waiting = Waiting::default();
        assert!(waiting.add(status("working")));
        assert!(!waiting.add(status("waiting")), "somebody is there already");
        assert!(!waiting.add(of("set-window-status working", r#"{"prompt":"p"}"#).expect("told")));
        assert!(!waiting.add(status("done")));
        let verbs: Vec<Verb> = waiting.0.lock().unwrap().0.iter().map(|told| told.verb).collect();
        assert_eq!(verbs, [Verb::Status("working"), Verb::Status("done")]);
        for _ in 0..100 {
            let _ = waiting.add(told(b"register-agent -").expect("told"));
        }
        assert_eq!(waiting.0.lock().unwrap().0.len(), WAITING);
        waiting.give_up();
        assert!(waiting.add(status("done")));
    }
}
