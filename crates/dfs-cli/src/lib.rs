//! dfs: the command line and the roles
