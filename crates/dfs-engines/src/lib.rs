//! Metadata engines on real stores
