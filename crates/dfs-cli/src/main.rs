//! `dfs`.
fn main() {}
