//! One file for each kind of behaviour.

mod administering;
mod deleting;
mod engine;
mod files;
mod life;
mod members;
mod passing_on;
mod repairing;
mod several;
mod waiting;
