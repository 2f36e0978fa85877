//! Runs cells: namespaces, the supervisor, the console, `exec`, state and cgroups, with libcontainer for the OCI *create* step.
//!
//! The order of reading: [`outer`] (where cellblock itself works) → [`supervisor`] (the guard of one cell) → `builder` (makes the
//! CELL's user namespace and calls libcontainer in it) → `init` (process 1 inside) → [`exec`] (another command in a running
//! cell). [`guard`] changes what the cell may change of the host's folders. [`state`] is what is on disk.
//!
//! Nothing here prints, asks or reads the environment. Nothing here starts a thread: libcontainer clones and runs Rust in the child,
//! and joining a user namespace needs a process with one thread.

mod builder;
pub mod cgroup;
pub mod cleanup;
pub mod control;
mod covers;
mod events;
pub mod exec;
pub mod exit;
pub mod guard;
mod idmap;
mod init;
pub mod keep;
mod late;
pub mod merged;
mod network;
pub mod outer;
mod pids;
mod place;
pub mod probe;
mod reap;
mod report;
mod root;
mod sandbox;
mod signals;
mod stage;
pub mod state;
mod stdio;
pub mod supervisor;
mod terminal;
mod watch;

pub use builder::BuildError;
pub use cgroup::CgroupError;
pub use guard::GuardError;
pub use idmap::IdMapError;
pub use network::NetworkError;
