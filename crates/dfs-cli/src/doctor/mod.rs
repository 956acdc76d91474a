//! What is wrong with a cluster, why, what is done about it, and what the user can do: a pure function
//! of what is known of it.

mod facts;
mod finding;
mod rules;
mod store;

pub(crate) use facts::{Checked, Coordinator, Emptying, Facts, Reply};
pub(crate) use finding::Finding;
pub(crate) use rules::{Unreached, examine, unreachable};
pub(crate) use store::{StoreFacts, examine_store};
