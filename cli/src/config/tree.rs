//! YAML text as a tree in which every key and every value knows its line.
//!
//! Only what a configuration needs: one document, text keys, no tags, no anchors and aliases (a value written far from where it
//! counts is a value read wrongly). Every scalar stays text; whoever reads the key decides what it means, so `user: 0100` or
//! `image: 3.20` never turn into another number on the way.

use granit_parser::{Event, Parser, ScalarStyle, Span, options};

use super::problem::{Place, Problem};

/// How deep maps and lists may be nested; ours are four deep, and reading is recursive.
const DEPTH: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Where it begins.
    pub(super) at: Place,
    /// What it is.
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// Text; `plain` is without quotes.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// A map in the order of the file; no key stands twice.
    Map(Vec<(Key, Node)>),
}

impl Kind {
    /// For messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar { .. } => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Where it stands.
    pub(super) at: Place,
    /// As written.
    pub(super) text: String,
}

/// Reads `text`. Keys that stand twice are told in `problems` and the first counts; anything else that is wrong ends the reading.
pub(super) fn parse(text: &str, problems: &mut Vec<Problem>) -> Result<Node, Problem> {
    // Said aloud, because another crate in the build may turn on the feature that emits them.
    let options = options! { emit_comments: false };
    let mut reader = Reader { parser: Parser::new_from_str_with_options(text, options), problems };
    let mut root = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(root.unwrap_or(Node { at: Place { line: 1, column: 1 }, kind: Kind::Null })),
            Event::StreamStart | Event::DocumentEnd => {}
            Event::DocumentStart(..) if root.is_none() => {
                let (event, span) = reader.next()?;
                root = Some(reader.node(event, span, 0)?);
            }
            _ => return Err(Problem::new(place(span), "a second document begins here; the file is one document")),
        }
    }
}

/// Lines count from 1 already, columns from 0.
fn place(span: Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

struct Reader<'a, 'p> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    problems: &'p mut Vec<Problem>,
}

impl<'a> Reader<'a, '_> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let at = Place { line: error.marker().line(), column: error.marker().col() + 1 };
                Err(Problem::new(at, format!("not valid YAML: {}", error.info())))
            }
            // The parser always ends with StreamEnd, after which nobody asks.
            None => Err(Problem::new(Place { line: 1, column: 1 }, "not valid YAML: it ends too early")),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        let at = place(span);
        if depth > DEPTH {
            return Err(Problem::new(at, "nested too deeply"));
        }
        if event.tag().is_some() {
            return Err(Problem::new(at, "YAML tags (`!…`) are not supported"));
        }
        if event.is_alias() || event.anchor_id().is_some() {
            return Err(Problem::new(at, "YAML anchors and aliases are not supported")
                .hint("write the value again, or put it under `defaults:`"));
        }
        let kind = match event {
            Event::Scalar(text, style, ..) => scalar(text.into_owned(), style),
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            _ => return Err(Problem::new(at, "not valid YAML: a value is missing")),
        };
        Ok(Node { at, kind })
    }

    fn list(&mut self, depth: usize) -> Result<Kind, Problem> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Kind::List(items));
            }
            items.push(self.node(event, span, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Kind, Problem> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Kind::Map(entries));
            }
            let key = self.node(event, span, depth + 1)?;
            let Kind::Scalar { text, .. } = key.kind else {
                return Err(Problem::new(key.at, format!("a key must be a word, not {}", key.kind.name())));
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if let Some((first, _)) = entries.iter().find(|(known, _)| known.text == text) {
                let line = first.at.line;
                self.problems.push(Problem::new(key.at, format!("`{text}` stands in line {line} already")));
            } else {
                entries.push((Key { at: key.at, text }, value));
            }
        }
    }
}

fn scalar(text: String, style: ScalarStyle) -> Kind {
    let plain = matches!(style, ScalarStyle::Plain);
    if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        Kind::Null
    } else {
        Kind::Scalar { text, plain }
    }
}
