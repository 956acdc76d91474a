//! Rendered objects: numbered conventions, and a check that every field of the spec has an effect.

mod conventions;
mod fixtures;
mod leaves;
mod network_policy;
mod settings;
mod templates;
