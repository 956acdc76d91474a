//! Rendered objects: numbered conventions, and that every field of the spec has an effect.

mod conventions;
mod fixtures;
mod leaves;
mod network_policy;
mod settings;
mod templates;
