//! The commands, one file each: arguments, calls of the SDK, output.

pub(crate) mod bench;
pub(crate) mod cat;
pub(crate) mod completions;
pub(crate) mod coordinator;
pub(crate) mod datanode;
pub(crate) mod df;
pub(crate) mod du;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod ln;
pub(crate) mod local;
pub(crate) mod ls;
pub(crate) mod metadata;
pub(crate) mod mkdir;
pub(crate) mod mv;
pub(crate) mod node;
pub(crate) mod put;
pub(crate) mod rm;
pub(crate) mod stat;
pub(crate) mod status;
pub(crate) mod tree;
pub(crate) mod undelete;
pub(crate) mod upgrade;
pub(crate) mod version;
pub(crate) mod worker;
pub(crate) mod xattr;
