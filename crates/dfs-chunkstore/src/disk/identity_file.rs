//! Identity file of a disk.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dfs_types::{Crc32c, DiskId, Incarnation, Level, NodeId, NodeSecret, RegistrationNumber};

use crate::{Fs, OpenError, Opening, Registration};

const NAME: &str = "dfs-identity";
const NAME_NEW: &str = "dfs-identity.new";
/// The identity is a few lines, of which paths are the longest; anything longer is damaged.
const LENGTH_MAX: usize = 1 << 20;
/// Maximum number of disks that an identity names.
pub(super) const KNOWN_MAX: usize = 64;
pub(super) const LOCK_NAME: &str = "dfs-lock";

/// A disk of the node, and the directory it was last found in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownDisk {
    pub(super) disk: DiskId,
    pub(super) folder: PathBuf,
}

/// The identity stored on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiskIdentity {
    pub(super) node: NodeId,
    pub(super) secret: NodeSecret,
    pub(super) disk: DiskId,
    /// Number of times the store was opened; part of every stamp.
    pub(super) starts: u64,
    /// The newest level of anything stored on the disk.
    pub(super) level: Level,
    pub(super) registration: Option<Registration>,
    /// The last registration that every disk in service had, or for which all of them are
    /// returning.
    pub(super) settled: Option<Registration>,
    /// The disks of the node, including this one, so that an empty directory where one of them was is
    /// recognized.
    pub(super) known: Vec<KnownDisk>,
}

impl DiskIdentity {
    fn encode(&self) -> String {
        let mut text = format!("dfs disk, level {}\n", self.level);
        let (registration, settled) = (text_of(self.registration), text_of(self.settled));
        let _ = write!(
            text,
            "node {}\nsecret {}\ndisk {}\nstarts {}\nregistration {registration}\nsettled {settled}\n",
            self.node,
            hex(self.secret.expose()),
            self.disk,
            self.starts,
        );
        for KnownDisk { disk, folder } in &self.known {
            let _ = writeln!(text, "known {disk} {}", escape(folder));
        }
        let crc = Crc32c::of(text.as_bytes());
        let _ = writeln!(text, "crc32c {crc}");
        text
    }

    /// Parses an identity, for a program that reads levels up to `newest`.
    fn decode(path: &Path, text: &str, newest: Level) -> Result<Self, OpenError> {
        let damaged = |what: &str| OpenError::DamagedIdentity {
            path: path.to_owned(),
            what: what.to_owned(),
        };
        let folder = || path.parent().unwrap_or(path).to_owned();
        let first = text.lines().next().unwrap_or_default();
        if first.starts_with("dfs disk, format ") {
            return Err(OpenError::OldDisk(folder()));
        }
        let level = first.strip_prefix("dfs disk, level ").and_then(|level| level.parse().ok());
        let level = Level(level.ok_or_else(|| damaged("its first line has no level"))?);
        if level > newest {
            return Err(OpenError::NewerLevel { folder: folder(), found: level, newest });
        }
        let body = text.rfind("crc32c ").map(|at| text.split_at(at));
        let (body, crc) = body.ok_or_else(|| damaged("its checksum is missing"))?;
        if crc != format!("crc32c {}\n", Crc32c::of(body.as_bytes())) {
            return Err(damaged("its checksum does not match"));
        }
        let field = |name: &str| {
            let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.ok_or_else(|| damaged(&format!("{name} is missing")))
        };
        let wrong = |name: &str| damaged(&format!("{name} is malformed"));
        Ok(Self {
            node: field("node")?.parse().map_err(|_| wrong("node"))?,
            secret: parse_secret(field("secret")?).ok_or_else(|| wrong("secret"))?,
            disk: field("disk")?.parse().map_err(|_| wrong("disk"))?,
            starts: field("starts")?.parse().map_err(|_| wrong("starts"))?,
            registration: parse_registration(field("registration")?)
                .map_err(|Unreadable| wrong("registration"))?,
            settled: parse_registration(field("settled")?)
                .map_err(|Unreadable| wrong("settled"))?,
            known: body
                .lines()
                .filter_map(|line| line.strip_prefix("known "))
                .map(|known| parse_known(known).ok_or_else(|| wrong("known")))
                .collect::<Result<_, _>>()?,
            level,
        })
    }

    /// Reads the identity of a directory; `None` if there is none.
    pub(super) fn read(
        fs: &dyn Fs,
        folder: &Path,
        newest: Level,
    ) -> Result<Option<Self>, OpenError> {
        let path = folder.join(NAME);
        let read = fs.open(&path, Opening::Existing).and_then(|file| file.read_at(0, LENGTH_MAX));
        match read {
            Ok(bytes) => {
                let text = std::str::from_utf8(&bytes).map_err(|_| OpenError::DamagedIdentity {
                    path: path.clone(),
                    what: "it is not text".to_owned(),
                })?;
                Self::decode(&path, text, newest).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(OpenError::Io { action: "reading", path, source }),
        }
    }

    /// Reads the file without its meaning, from the disk rather than from caches as far as possible.
    pub(super) fn probe(fs: &dyn Fs, folder: &Path) -> io::Result<()> {
        let file = fs.open(&folder.join(NAME), Opening::Existing)?;
        file.drop_cached(0, LENGTH_MAX as u64);
        file.read_at(0, LENGTH_MAX).map(drop)
    }

    /// Replaces the identity of a directory atomically and durably.
    pub(super) fn write(&self, fs: &dyn Fs, folder: &Path) -> io::Result<()> {
        replace_file(fs, folder, NAME, NAME_NEW, self.encode())
    }
}

/// Replaces a file, atomically and durably, by writing another one first.
pub(super) fn replace_file(
    fs: &dyn Fs,
    folder: &Path,
    name: &str,
    name_new: &str,
    text: String,
) -> io::Result<()> {
    let new = folder.join(name_new);
    let file = fs.open(&new, Opening::Create)?;
    file.write_at(0, &[Bytes::from(text)])?;
    file.sync()?;
    fs.rename(&new, &folder.join(name))?;
    fs.sync_dir(folder)
}

/// Returns true if a directory without an identity contains no data.
pub(super) fn is_empty_disk(fs: &dyn Fs, folder: &Path) -> io::Result<bool> {
    for name in fs.list(folder)? {
        let is_ours_or_the_systems = match name.as_str() {
            super::CHUNKS | super::SEGMENTS => fs.list(&folder.join(&name))?.is_empty(),
            NAME_NEW | LOCK_NAME | "lost+found" => true,
            name => name.starts_with('.'),
        };
        if !is_ours_or_the_systems {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns a path as printable ASCII without spaces.
fn escape(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_graphic() && *byte != b'%' {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

fn unescape(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend(parts.next()?.bytes());
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(part.get(2..)?.bytes());
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

fn parse_known(text: &str) -> Option<KnownDisk> {
    let (disk, folder) = text.split_once(' ')?;
    Some(KnownDisk { disk: disk.parse().ok()?, folder: unescape(folder)? })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

fn parse_secret(text: &str) -> Option<NodeSecret> {
    if !text.is_ascii() {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    NodeSecret::from_slice(&bytes)
}

fn text_of(registration: Option<Registration>) -> String {
    registration.map_or_else(
        || "none".to_owned(),
        |found| format!("{} {} {}", found.cluster, found.incarnation, found.number),
    )
}

/// A malformed registration.
#[derive(Debug, PartialEq, Eq)]
struct Unreadable;

fn parse_registration(text: &str) -> Result<Option<Registration>, Unreadable> {
    if text == "none" {
        return Ok(None);
    }
    let words: Vec<_> = text.split(' ').collect();
    let &[cluster, incarnation, number] = &words[..] else { return Err(Unreadable) };
    let parse = |text: &str| text.parse().map_err(|_| Unreadable);
    Ok(Some(Registration {
        cluster: cluster.parse().map_err(|_| Unreadable)?,
        incarnation: Incarnation(parse(incarnation)?),
        number: RegistrationNumber(parse(number)?),
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use dfs_types::ClusterId;

    use super::*;

    pub(in crate::disk) fn registration(number: u64) -> Registration {
        let number = RegistrationNumber(number);
        Registration { cluster: ClusterId(7), incarnation: Incarnation(2), number }
    }

    pub(in crate::disk) fn disk(
        id: u128,
        number: u64,
        settled: u64,
    ) -> (PathBuf, Option<DiskIdentity>) {
        let identity = DiskIdentity {
            node: NodeId(1),
            secret: NodeSecret::from_slice(&[0xa5; 32]).unwrap(),
            disk: DiskId(id),
            starts: 3,
            level: Level::FIRST,
            registration: Some(registration(number)),
            settled: Some(registration(settled)),
            known: vec![KnownDisk { disk: DiskId(id), folder: PathBuf::from(format!("/{id}")) }],
        };
        (PathBuf::from(format!("/{id}")), Some(identity))
    }

    fn decode(path: &Path, text: &str) -> Result<DiskIdentity, OpenError> {
        DiskIdentity::decode(path, text, Level::FIRST)
    }

    #[test]
    fn text_round_trips_and_damage_is_detected() {
        let (path, identity) = disk(2, 6, 5);
        let mut identity = identity.unwrap();
        let folder = PathBuf::from("/a b%/\u{e9}\n");
        identity.known.push(KnownDisk { disk: DiskId(3), folder });
        let text = identity.encode();
        assert_eq!(decode(&path, &text).unwrap(), identity);
        let none = DiskIdentity { registration: None, settled: None, ..identity.clone() };
        assert_eq!(decode(&path, &none.encode()).unwrap(), none);
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1;
            let bad = String::from_utf8(bad).unwrap();
            assert!(decode(&path, &bad).is_err(), "byte {at}");
            assert!(decode(&path, &text[..at]).is_err(), "cut at {at}");
        }
        let newer = DiskIdentity { level: Level(2), ..identity }.encode();
        let error = decode(&path, &newer).unwrap_err();
        assert!(matches!(error, OpenError::NewerLevel { found: Level(2), .. }), "{error}");
        assert!(DiskIdentity::decode(&path, &newer, Level(2)).is_ok());
        let old = text.replace("level 1", "format 1");
        assert!(matches!(decode(&path, &old), Err(OpenError::OldDisk(_))));
    }
}
