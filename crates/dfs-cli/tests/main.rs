//! `dfs` as users run it: real processes on loopback.

#[cfg(test)]
mod arguments;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod copying;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod draining;
#[cfg(test)]
mod drills;
#[cfg(test)]
mod etcd;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod json_page;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod local;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod metadata;
#[cfg(test)]
mod power;
#[cfg(test)]
mod rebalancing;
#[cfg(test)]
mod relaying;
#[cfg(test)]
mod replication;
#[cfg(test)]
mod semantics;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod sizes;
#[cfg(test)]
mod support;
#[cfg(test)]
mod trees;
