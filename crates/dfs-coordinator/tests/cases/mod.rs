//! One file per kind of behaviour.

mod administering;
mod adopting;
mod bootstrap;
mod deleting;
mod draining;
mod engine;
mod files;
mod life;
mod members;
mod rebalancing;
mod reconciling;
mod rejoining;
mod relaying;
mod repairing;
mod replicating;
mod several;
mod unreadable;
mod workers;
