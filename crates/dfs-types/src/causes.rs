//! Formatting of errors with their causes.

use std::error::Error;

/// Formats an error with all its causes, except those that its text already contains.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as _)
        }
    }

    #[test]
    fn causes_follow_once_each() {
        let deep = Layer("no route", None);
        let middle = Layer("cannot connect", Some(Box::new(deep)));
        let repeats = Layer("put: cannot connect", Some(Box::new(middle)));
        assert_eq!(with_causes(&repeats), "put: cannot connect: no route");
        assert_eq!(with_causes(&Layer("alone", None)), "alone");
    }
}
