//! Names as printable text.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Returns bytes as text if they are UTF-8 without control characters, escaped otherwise, so that a
/// name never moves the cursor of a terminal.
pub(crate) fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Returns a local path as text like [`printable`].
pub(crate) fn printable_path(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_stay_on_one_line() {
        assert_eq!(printable("é b".as_bytes()), "é b");
        assert_eq!(printable(b"a\n\xff"), "a\\n\\xff");
    }
}
