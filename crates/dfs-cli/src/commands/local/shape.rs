//! Number of datanodes of a local file system, and replicas of its files.

use crate::error::{Error, Result};

/// Datanodes and replicas when neither is set.
const DEFAULT: usize = 3;

/// The numbers of one start.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    datanodes: usize,
    /// Datanodes that the data directory already held.
    before: usize,
    /// Requested replication factor.
    asked: Option<u8>,
}

impl Shape {
    /// Determines how many datanodes run on a directory that holds `before` of them. Refuses fewer,
    /// as the data of the others would be missing, and more replicas than datanodes.
    pub(super) fn new(datanodes: Option<usize>, asked: Option<u8>, before: usize) -> Result<Self> {
        let default = if before == 0 { DEFAULT } else { before };
        let datanodes = datanodes.unwrap_or(default);
        if datanodes < before {
            return Err(Error::usage(format_args!(
                "the data directory holds {before} datanodes, and with --datanodes {datanodes} the \
                 data of the others would be missing"
            ))
            .hint("start it without --datanodes, or choose another directory with --data-dir"));
        }
        if let Some(factor) = asked.filter(|factor| usize::from(*factor) > datanodes) {
            return Err(Error::usage(format_args!(
                "--replication-factor {factor} needs as many datanodes, but only {datanodes} would \
                 run"
            ))
            .hint(format_args!("--datanodes {factor} starts enough")));
        }
        Ok(Self { datanodes, before, asked })
    }

    pub(super) fn datanodes(&self) -> usize {
        self.datanodes
    }

    /// Returns the replicas of new files: the number requested, now or when it was `stored`, or else
    /// the default for the number of datanodes.
    pub(super) fn replication_factor(&self, stored: Option<u32>) -> u8 {
        let suited = |datanodes: usize| DEFAULT.min(datanodes) as u8;
        match (self.asked, stored.and_then(|factor| u8::try_from(factor).ok())) {
            (Some(factor), _) => factor,
            (None, Some(factor))
                if factor != suited(self.before) && usize::from(factor) <= self.datanodes =>
            {
                factor
            }
            _ => suited(self.datanodes),
        }
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::ErrorCode;

    use super::*;

    fn shape(datanodes: Option<usize>, asked: Option<u8>, before: usize) -> Shape {
        Shape::new(datanodes, asked, before).unwrap()
    }

    #[test]
    fn replication_factor_follows_the_number_of_datanodes() {
        for (datanodes, before, stored, running, factor) in [
            (None, 0, None, 3, 3),
            (Some(1), 0, None, 1, 1),
            (Some(2), 0, None, 2, 2),
            (Some(5), 0, None, 5, 3),
            // The directory is used again.
            (None, 1, Some(1), 1, 1),
            (Some(2), 1, Some(1), 2, 2),
            (Some(4), 2, Some(2), 4, 3),
            // Requested when the file system was created.
            (Some(5), 3, Some(2), 5, 2),
            (None, 5, Some(5), 5, 5),
            // More replicas than datanodes would store nothing.
            (None, 1, Some(3), 1, 1),
        ] {
            let shape = shape(datanodes, None, before);
            assert_eq!(shape.datanodes(), running);
            assert_eq!(shape.replication_factor(stored), factor, "{shape:?} {stored:?}");
        }
        assert_eq!(shape(Some(3), Some(2), 3).replication_factor(Some(3)), 2);
    }

    #[test]
    fn fewer_datanodes_or_too_many_replicas_are_refused() {
        for (datanodes, asked, before) in
            [(Some(1), None, 3), (Some(2), Some(3), 0), (None, Some(4), 0), (None, Some(2), 1)]
        {
            let error = Shape::new(datanodes, asked, before).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
        }
    }
}
