//! Words to people and data to programs: data on standard output, everything else on standard error, colour only on a terminal.

use std::io::{IsTerminal, Write};

use cellblock_egress::audit::is_hidden;

use crate::report::CliError;

/// Bold, dim and so on, if standard error is a terminal and `NO_COLOR` is not set (no-color.org).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style(bool);

impl Style {
    pub(crate) fn stderr() -> Self {
        Self(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    pub(crate) fn stdout() -> Self {
        Self(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    /// None of it.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self(false)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.wrap("36", text)
    }
}

/// Writes data to standard output. A closed pipe is no error: whoever reads has seen enough.
pub(crate) fn data(text: &str) -> Result<(), CliError> {
    data_while_read(text).map(|_| ())
}

/// The same, and whether anybody still reads: for what would go on without an end.
pub(crate) fn data_while_read(text: &str) -> Result<bool, CliError> {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::Output(error)),
    }
}

/// Writes a JSON document to standard output.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| CliError::Output(e.into()))?;
    data(&(text + "\n"))
}

/// Writes a line, or several, to standard error: in one piece, so that they stay together beside other programs' words.
pub(crate) fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// A table with a header, for people.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(header.to_vec()).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// Text from a cell or a repository, fit for a terminal: control characters are shown, not obeyed, and so are those that have no looks of their own or turn the
/// writing around ([`is_hidden`]).
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { format!("\\u{{{:x}}}", u32::from(c)) } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_or_turns_writing_around_is_shown() {
        assert_eq!(plain("é 日本 🦀"), "é 日本 🦀");
        assert_eq!(
            plain("a\x1b[2J\u{202e}b\u{2066}\u{200f}\u{feff}"),
            "a\\u{1b}[2J\\u{202e}b\\u{2066}\\u{200f}\\u{feff}"
        );
    }
}
