//! The limit of open files that the operating system sets.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files and sockets to the hard limit, and returns it; `None` for no
/// limit. The usual default of 1,024 is too low for a server.
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_raised_to_the_hard_limit() {
        let allowed = raise_file_limit().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, allowed);
        assert_eq!(raise_file_limit().unwrap(), allowed);
    }
}
