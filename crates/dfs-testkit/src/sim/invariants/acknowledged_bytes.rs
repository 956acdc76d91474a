//! No acknowledged byte is lost: a read returns one complete version that may exist at that time.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::sim::model::{State, content_of};

/// Checks the result of a read, `None` for no file, against the states that it may have seen.
pub(in crate::sim) fn check(
    found: Option<&Bytes>,
    possible: &BTreeSet<State>,
) -> Result<(), String> {
    let is_right = possible.iter().any(|state| match (state, found) {
        (None, None) => true,
        (Some(version), Some(bytes)) => content_of(*version) == bytes,
        _ => false,
    });
    let what = match found {
        _ if is_right => return Ok(()),
        None => "nothing".to_owned(),
        Some(bytes) => {
            let head = &bytes[..bytes.len().min(16)];
            format!("{} bytes, {head:02x?}…", bytes.len())
        }
    };
    Err(format!("read {what}, expected one of {possible:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_possible_version_is_accepted() {
        let possible = BTreeSet::from([None, Some(2)]);
        assert!(check(None, &possible).is_ok());
        assert!(check(Some(&content_of(2)), &possible).is_ok());
        assert!(check(Some(&content_of(1)), &possible).is_err());
        assert!(check(None, &BTreeSet::from([Some(2)])).is_err());
    }
}
