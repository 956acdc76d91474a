//! `dfs` as its users run it: real processes on loopback.

mod arguments;
mod kills;
mod memory;
mod sizes;
mod support;
mod trees;
