//! What a cell may reach, by name. Knows names, addresses, packets and policies, and no containers.
//!
//! The order of reading: [`name`] and [`address`] (what there is) → [`policy`] (what may be reached) → [`table`] (the made-up addresses by which
//! the cell knows names) → [`dns`] (its resolver), [`tls`] (the name in a client's first bytes), [`http`]
//! (every request of a plain connection), [`packet`] (what was refused before it became a connection).
//!
//! Whatever arrives from a cell is hostile. Everything that parses it takes bytes and does no input or output.

pub mod address;
pub mod audit;
pub mod control;
pub mod dns;
pub mod gateway;
pub mod git;
pub mod http;
pub mod intercept;
pub mod name;
pub mod packet;
pub mod policy;
pub mod serve;
pub mod table;
pub mod tls;
pub mod who;
