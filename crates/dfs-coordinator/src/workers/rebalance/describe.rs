//! Descriptions of what the worker does or waits for.

use dfs_types::{ByteSize, NodeId};

use super::balance::Balance;

pub(super) fn even(balance: &Balance, nodes: usize) -> String {
    match nodes {
        0 | 1 => "nothing to do with fewer than two datanodes that take chunks".to_owned(),
        _ => format!("all datanodes are about as full as the mean, {:.0} %", balance.mean()),
    }
}

pub(super) fn moving(balance: &Balance, giver: NodeId) -> String {
    format!(
        "moving replicas from node {giver}, which is {:.0} % full, to nodes below the mean of \
         {:.0} %: {} left",
        balance.fill(giver),
        balance.mean(),
        ByteSize(balance.left())
    )
}

pub(super) fn stuck(balance: &Balance, giver: NodeId) -> String {
    format!(
        "node {giver} is {:.0} % full and the mean is {:.0} %, but none of its replicas can be \
         moved: the emptier nodes or their zones already have one, or the replicas are too large",
        balance.fill(giver),
        balance.mean()
    )
}
