//! Names that need not be UTF-8, as text.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Shows bytes as text when they are UTF-8 without control characters, else escaped, so that a
/// name never moves the cursor of a terminal.
pub(crate) fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Shows a local path as [`printable`] does.
pub(crate) fn printable_path(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_stay_on_their_line() {
        assert_eq!(printable("é b".as_bytes()), "é b");
        assert_eq!(printable(b"a\n\xff"), "a\\n\\xff");
    }
}
