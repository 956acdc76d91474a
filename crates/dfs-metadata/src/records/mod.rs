//! What is stored: the values under the keys of [`crate::keys`].
pub(crate) mod chunk;
pub(crate) mod node;
