//! One file for each kind of behaviour.

mod adopting;
mod bounds;
mod building;
mod coordinators;
mod damage;
mod frames;
mod inventory;
mod life;
mod logs;
mod orders;
mod sessions;
