//! From what is meant to the one artefact that every OCI runtime understands.
//!
//! [`Cell`] is plain data; `spec` turns it, together with the root file system that was prepared for it, into an
//! [`oci_spec::runtime::Spec`]. Everything here is pure: no file is read, no system call is made.

pub mod branches;
pub mod cell;
pub mod policy;
pub mod protect;
pub mod seccomp;
pub mod spec;

pub use cell::{
    Added, Cell, Edit, Extent, IdScheme, Ids, Limits, Mount, Network, Overlay, Profile, Project, Publish, Reach,
    RootFs, Said, SecretUse, Seed, State, StateKind, StateMode, User,
};
pub use protect::Protect;
