//! Limits that the operating system sets a process.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of files and sockets that may be open to what the administrator allows, and
/// returns it; `None` stands for no limit. The usual start value of 1,024 is too low for a server.
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
    fn the_limit_is_raised_to_what_is_allowed() {
        let allowed = raise_file_limit().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, allowed);
        assert_eq!(raise_file_limit().unwrap(), allowed);
    }
}
