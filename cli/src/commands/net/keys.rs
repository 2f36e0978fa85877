//! Single keys from the person's terminal, which is given back as it was on every way out.

use std::io;
use std::sync::Mutex;

use cellblock_sys::signal::SignalSet;
use rustix::process::Signal;
use rustix::stdio::stdin;
use rustix::termios::{LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};

use crate::report::CliError;

/// The settings to go back to, also from a panic: with `panic = "abort"` no destructor runs.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// What was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// A key, or the first byte of one.
    Key(u8),
    /// Nothing after all.
    Nothing,
    /// The terminal is gone.
    End,
}

/// Standard input, a terminal, giving keys one by one and not showing them, while this lives. Ctrl-C and Ctrl-Z stay signals.
#[derive(Debug)]
pub(super) struct Keys(());

impl Keys {
    /// Switches the terminal over.
    pub(super) fn enter() -> Result<Self, CliError> {
        let saved = tcgetattr(stdin()).map_err(failed)?;
        if let Ok(mut slot) = SAVED.lock() {
            if slot.is_none() {
                restore_on_panic();
            }
            *slot = Some(saved);
        }
        let keys = Self(());
        keys.again()?;
        Ok(keys)
    }

    /// Switches it over once more, after somebody else had it: a shell, while this process was stopped.
    pub(super) fn again(&self) -> Result<(), CliError> {
        let mut changed = tcgetattr(stdin()).map_err(failed)?;
        changed.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Drain, &changed).map_err(failed)
    }

    /// Gives it back for a while.
    pub(super) fn give_back(&self) {
        restore();
    }

    /// Forgets what was typed and not read yet.
    pub(super) fn flush(&self) {
        let _ = tcflush(stdin(), QueueSelector::IFlush);
    }

    /// What was typed. Of a key that sends several bytes, such as an arrow, only the first one.
    pub(super) fn read(&self) -> Typed {
        let mut bytes = [0; 64];
        match rustix::io::read(stdin(), &mut bytes) {
            Ok(0) => Typed::End,
            Ok(_) => Typed::Key(bytes.first().copied().unwrap_or_default()),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Typed::Nothing,
            Err(_) => Typed::End,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        restore();
    }
}

fn failed(error: rustix::io::Errno) -> CliError {
    CliError::Process { what: "cannot read keys from the terminal", source: io::Error::from(error) }
}

fn restore() {
    if let Ok(slot) = SAVED.try_lock()
        && let Some(saved) = slot.as_ref()
    {
        // From a background group this would stop us; blocked, the kernel lets it through (tcsetattr(3), credentials(7)).
        let before = SignalSet::of(&[Signal::TTOU.as_raw()]).block();
        let _ = tcsetattr(stdin(), OptionalActions::Drain, saved);
        let _ = before.and_then(|set| set.replace());
    }
}

fn restore_on_panic() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        previous(info);
    }));
}
