//! End-to-end tests: they only use the `cellblock` command, and pass as root, as an ordinary user with subordinate ids, and without.
//!
//! Every denial has a positive twin beside it that proves the probe works.

mod agents;
mod agents_real;
mod bad_input;
mod bridge;
mod bridges;
mod command_line;
mod compat;
mod faults;
mod files;
mod git_config;
mod git_credentials;
mod git_matrix;
mod guard;
mod home;
mod images;
mod inside;
mod killed;
mod lifecycle;
mod limits;
mod net_commands;
mod network;
mod network_clients;
mod network_faults;
mod network_https;
mod network_rungs;
mod network_seen;
mod network_tools;
mod network_walls;
mod programs;
mod secret_variables;
mod secrets;
mod security;
mod seeds;
mod seeds_real;
mod signing;
mod ssh;
mod state;
mod state_login;
mod streams;
mod terminal;
mod versions;
mod workmux;
