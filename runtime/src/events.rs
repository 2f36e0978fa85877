//! libcontainer's events, in whichever of its processes they come up: its errors, and the places where our own code has something to do.

use std::fmt::Write as _;
use std::os::fd::AsFd;

use crate::late::{self, Late};
use crate::pids::{self, Pids};

/// Collects libcontainer's error events. Its errors cross a pipe as one flattened string that often lacks the cause; the cause
/// is only in the events, which are emitted in its children: hence a shared descriptor and not memory.
#[derive(Debug)]
pub(crate) struct ErrorLog(std::fs::File);

impl ErrorLog {
    /// Hears of all events from here on, in this process and those that it forks.
    pub(crate) fn install(pids: Option<Pids>, late: Late) -> Option<Self> {
        let file = std::fs::File::from(rustix::fs::memfd_create(c"errors", rustix::fs::MemfdFlags::CLOEXEC).ok()?);
        let writer = file.try_clone().ok()?;
        tracing::subscriber::set_global_default(Subscriber { errors: writer, pids, late }).ok()?;
        Some(Self(file))
    }
}

/// What an error log has, if there is one.
pub(crate) trait Take {
    /// The cause of what went wrong; nothing if nothing did.
    fn take(&self) -> String;
}

impl Take for Option<ErrorLog> {
    /// The first event: it is the innermost cause, the later ones repeat it on their way up.
    fn take(&self) -> String {
        let Some(ErrorLog(file)) = self else { return String::new() };
        let mut bytes = vec![0u8; 4096];
        let length = std::os::unix::fs::FileExt::read_at(file, &mut bytes, 0).unwrap_or(0);
        bytes.truncate(length);
        String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned()
    }
}

/// Hears of libcontainer's events in whichever of its processes they come up.
struct Subscriber {
    errors: std::fs::File,
    pids: Option<Pids>,
    late: Late,
}

impl Subscriber {
    fn note(&self, words: &str) {
        let _ = rustix::io::write(self.errors.as_fd(), format!("{}\n", words.replace('\n', " ")).as_bytes());
    }
}

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
            || metadata.target() == late::TARGET
            || (self.pids.is_some() && metadata.target() == pids::TARGET)
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if let Some(pids) = self.pids.as_ref().filter(|_| event.metadata().target() == pids::TARGET) {
            pids.begin();
        }
        if event.metadata().target() == late::TARGET
            && let Err(error) = self.late.mount()
        {
            self.note(&error.to_string());
        }
        if *event.metadata().level() != tracing::Level::ERROR {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let text = if line.fields.is_empty() { line.message } else { format!("{} ({})", line.message, line.fields) };
        self.note(&text);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let separator = if self.fields.is_empty() { "" } else { ", " };
            let _ = write!(self.fields, "{separator}{}: {value:?}", field.name());
        }
    }
}
