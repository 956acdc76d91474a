//! Replies kept for repeats: `r/`.

use dfs_types::{Revision, Sha256, Timestamp};

use super::stat::FileStat;
use crate::Error;
use crate::codec::{Reader, Record, Writer};

/// The reply to the newest call of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) sequence: u64,
    pub(crate) body: Sha256,
    pub(crate) answer: Answer,
}

/// The reply to a mutating call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Stat(FileStat),
    RestorableUntil(Option<Timestamp>),
}

impl Answer {
    /// Returns the reply to a call committed at that revision, which becomes the change of its
    /// inode.
    pub(crate) fn committed(mut self, revision: Revision) -> Self {
        if let Self::Stat(stat) = &mut self
            && stat.change.revision == Revision::default()
        {
            stat.change.revision = revision;
        }
        self
    }
}

/// Returns the inode description in a reply.
pub(crate) fn stat_of(answer: Answer) -> Result<FileStat, Error> {
    match answer {
        Answer::Stat(stat) => Ok(stat),
        _ => Err(Error::Damaged { key: "r/".to_owned(), what: "an answer to another call" }),
    }
}

impl Record for Kept {
    fn write(&self, out: &mut Writer) {
        out.number(self.sequence);
        out.fixed(&self.body.0);
        match &self.answer {
            Answer::Done => out.u8(0),
            Answer::Stat(stat) => {
                out.u8(1);
                stat.write(out);
            }
            Answer::RestorableUntil(until) => {
                out.u8(2);
                out.option(until.as_ref(), |out, until| out.time(*until));
            }
        }
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            sequence: input.number()?,
            body: Sha256(input.array()?),
            answer: match input.u8()? {
                0 => Answer::Done,
                1 => Answer::Stat(FileStat::read(input)?),
                2 => Answer::RestorableUntil(input.option(Reader::time)?),
                _ => return None,
            },
        })
    }
}
