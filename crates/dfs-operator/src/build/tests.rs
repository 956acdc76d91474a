//! What is made of a resource: conventions by their numbers, and that no field is without effect.

mod conventions;
mod fence;
mod fixtures;
mod leaves;
mod settings;
mod templates;
