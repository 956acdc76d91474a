//! Supported versions: an operator manages its own minor version and the one before, desired or
//! running.
//!
//! An operator does not know what a newer version needs, nor what it would undo. So it changes
//! nothing and reports which operator can help. The version of an operand is the tag of its image,
//! unless a digest overrides it or it is not a version, and the version that coordinators and
//! datanodes report. Running operands that are older are no obstacle: upgrading is the way out.

use dfs_crd::Reason;

use super::Finding;
use crate::observed::{Observed, pod_of};

/// The version of this operator.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// Major and minor; patch versions make no difference between operator and operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Minor(u32, u32);

/// Relation of a version to that of the operator.
#[derive(Debug, PartialEq, Eq)]
enum VersionSupport {
    Managed,
    Newer,
    Older,
}

impl Minor {
    /// Parses `1.2`, `v1.2.3`, `1.2.3-rc.1+more`; `None` for other text.
    fn read(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (major, rest) = text.split_once('.')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (minor, rest) = rest.split_at(end);
        let is_whole = rest.is_empty() || rest.starts_with(['.', '-', '+']);
        let number = |digits: &str| {
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse().ok())?
        };
        is_whole.then_some(Self(number(major)?, number(minor)?))
    }

    fn support(self, own: Self) -> VersionSupport {
        // The last minor version of a major one is unknown here: all of them are accepted.
        let oldest = match own {
            Self(0, 0) => own,
            Self(major, 0) => Self(major - 1, 0),
            Self(major, minor) => Self(major, minor - 1),
        };
        if self > own {
            VersionSupport::Newer
        } else if self < oldest {
            VersionSupport::Older
        } else {
            VersionSupport::Managed
        }
    }
}

impl std::fmt::Display for Minor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Returns why the requested image is not managed.
pub(super) fn wanted(seen: &Observed) -> Option<Finding> {
    let own = Minor::read(OWN)?;
    let image = &seen.cluster.spec.image;
    let version = Minor::read(&image.tag).filter(|_| image.digest.is_none())?;
    let tag = &image.tag;
    let message = match version.support(own) {
        VersionSupport::Managed => return None,
        VersionSupport::Newer => format!(
            "spec.image.tag is {tag}, which is newer than this operator, {OWN}; upgrade the \
             operator to {version} first, or revert the tag"
        ),
        VersionSupport::Older => format!(
            "spec.image.tag is {tag}, but this operator, {OWN}, manages {own} and the previous \
             minor version; set the tag to one of these, or run an operator of version {version}"
        ),
    };
    Some(Finding::new(Reason::VersionUnsupported, message))
}

/// Returns why the running version is not managed.
pub(super) fn running(seen: &Observed) -> Option<Finding> {
    let own = Minor::read(OWN)?;
    let snapshot = seen.snapshot()?;
    let nodes = snapshot.nodes.iter().map(|node| (pod_of(node), node.version.as_str()));
    let mut all = std::iter::once(("a coordinator", snapshot.version.as_str())).chain(nodes);
    let (name, version) = all.find(|(_, version)| {
        Minor::read(version).is_some_and(|minor| minor.support(own) == VersionSupport::Newer)
    })?;
    Some(Finding::new(
        Reason::VersionUnsupported,
        format!(
            "{name} runs version {version}, which is newer than this operator, {OWN}; run an \
             operator of that version, which can also downgrade the cluster"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed_and_other_text_is_not() {
        for (text, minor) in [
            ("1.2", Some(Minor(1, 2))),
            ("1.2.3", Some(Minor(1, 2))),
            ("v1.20.3", Some(Minor(1, 20))),
            ("0.1.0-next", Some(Minor(0, 1))),
            ("0.1.0+build.7", Some(Minor(0, 1))),
            ("1.2-alpine", Some(Minor(1, 2))),
            ("1", None),
            ("main", None),
            ("nosuch", None),
            ("1.x", None),
            ("1.2x", None),
            ("+1.2", None),
            ("20261126", None),
            ("", None),
            ("1.99999999999999999999", None),
        ] {
            assert_eq!(Minor::read(text), minor, "{text:?}");
        }
        assert!(Minor::read(OWN).is_some());
    }

    #[test]
    fn c67_own_and_previous_minor_version_are_managed() {
        use VersionSupport::{Managed, Newer, Older};
        for (version, own, support) in [
            ("1.2.9", "1.2.0", Managed),
            ("1.1.0", "1.2.0", Managed),
            ("1.0.0", "1.2.0", Older),
            ("0.9.0", "1.2.0", Older),
            ("1.3.0", "1.2.9", Newer),
            ("2.0.0", "1.2.0", Newer),
            ("1.7.0", "2.0.0", Managed),
            ("0.9.0", "2.0.0", Older),
            ("0.0.1", "0.0.9", Managed),
            // C70: patch versions make no difference.
            ("1.2.9", "1.2.8", Managed),
        ] {
            let (version, own) = (Minor::read(version).unwrap(), Minor::read(own).unwrap());
            assert_eq!(version.support(own), support, "{version} under {own}");
        }
    }
}
