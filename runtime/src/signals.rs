//! Signal numbers as constants, for patterns.

use rustix::process::Signal;

macro_rules! numbers {
    ($($name:ident)*) => { $(
        #[doc = concat!("`SIG", stringify!($name), "`.")]
        pub(crate) const $name: i32 = Signal::$name.as_raw();
    )* };
}

numbers! { HUP INT QUIT KILL USR1 USR2 TERM CONT TSTP TTOU WINCH }

/// `SIGCHLD`, which rustix calls otherwise.
pub(crate) const CHLD: i32 = Signal::CHILD.as_raw();

/// What a supervisor takes from a descriptor instead of being interrupted by it.
pub(crate) const SUPERVISED: &[i32] = &[HUP, INT, QUIT, USR1, USR2, TERM, CHLD, CONT, TSTP, WINCH];
