//! What answers a cell from outside of it, so that no secret has to enter: the ssh agent, signatures of gpg's, git credentials, images of the clipboard, the browser, workmux.
//!
//! One process a cell, and only for a cell for which something of it was asked. It stands in the host's namespaces, with the person's
//! environment, for it runs the person's programs; it is no child of the supervisor, so that a browser it has started outlives the cell, and
//! it ends as soon as the supervisor does, however that ends.
//!
//! The order of reading: [`settings`] (what may be asked) → [`process`] (how it begins and ends) → `serve` (who asks) → [`agent`],
//! [`credentials`], [`bridge`], [`signature`], [`workmux`] (what is answered). Whatever arrives from a cell is hostile: what parses it takes bytes and does nothing else.

pub mod agent;
pub mod bridge;
mod child;
pub mod credentials;
mod log;
pub mod process;
mod serve;
pub mod settings;
pub mod signature;
pub mod workmux;

pub use process::{BrokerError, end, start};
pub use settings::{Agent, Settings, Signer};
