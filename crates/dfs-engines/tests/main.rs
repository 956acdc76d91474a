//! Tests of the engines on their real stores, in one binary.

// `cfg(test)` always holds; it tells clippy that helpers belong to tests, too.
#[cfg(test)]
mod etcd;
#[cfg(test)]
mod migrating;
#[cfg(test)]
mod redb;
#[cfg(test)]
mod urls;
