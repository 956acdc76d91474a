//! Which of both is at fault when a node reaches none of the sources of a build. Pure.
//!
//! The target says only that they did not reply. It is at fault if another target built from one of
//! them since, or if it reaches none of several sources with which no other target fails. Otherwise
//! the sources may be, and the chunk alone rests.

use std::collections::BTreeMap;

use dfs_types::NodeId;

/// A target, and a source that it did not reach.
type Pair = (NodeId, NodeId);

/// Sources that targets did not reach since they last built anything from another node.
#[derive(Debug, Default)]
pub(crate) struct UnreachedSources {
    /// Whether another target has built from the source since.
    others_build: BTreeMap<Pair, bool>,
}

impl UnreachedSources {
    /// Records that a target has built from a source.
    pub(crate) fn built(&mut self, target: NodeId, source: NodeId) {
        self.others_build.retain(|(other, _), _| *other != target);
        let of_source = self.others_build.iter_mut().filter(|((_, other), _)| *other == source);
        of_source.for_each(|(_, others_build)| *others_build = true);
    }

    /// Records that a target reached none of these sources. Returns whether it is at fault.
    pub(crate) fn reached_none(&mut self, target: NodeId, sources: &[NodeId]) -> bool {
        let others_build =
            sources.iter().any(|source| self.others_build.get(&(target, *source)) == Some(&true));
        for source in sources {
            self.others_build.entry((target, *source)).or_default();
        }
        let of_target = self.others_build.keys().filter(|(other, _)| *other == target);
        let unreached: Vec<NodeId> = of_target.map(|(_, source)| *source).collect();
        let others_fail = self.others_build.iter().any(|((other, source), others_build)| {
            *other != target && !others_build && unreached.contains(source)
        });
        others_build || (unreached.len() > 1 && !others_fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: [NodeId; 2] = [NodeId(1), NodeId(2)];
    const TARGETS: [NodeId; 2] = [NodeId(3), NodeId(4)];

    #[test]
    fn target_without_a_source_is_at_fault_once_another_built_from_it() {
        let mut unreached = UnreachedSources::default();
        let ([source, other], [target, working]) = (SOURCES, TARGETS);
        unreached.built(working, source);
        assert!(!unreached.reached_none(target, &[source]), "it may have died since");
        assert!(!unreached.reached_none(target, &[source]));
        unreached.built(working, other);
        assert!(!unreached.reached_none(target, &[source]), "another source says nothing of it");
        unreached.built(working, source);
        assert!(unreached.reached_none(target, &[source]));
        unreached.built(target, source);
        assert!(!unreached.reached_none(target, &[source]), "it builds again");
    }

    #[test]
    fn target_without_any_of_several_sources_is_at_fault_unless_others_fail_too() {
        let mut unreached = UnreachedSources::default();
        let ([source, other], [first, second]) = (SOURCES, TARGETS);
        assert!(unreached.reached_none(first, &SOURCES));
        assert!(!unreached.reached_none(second, &SOURCES), "the sources are");
        assert!(!unreached.reached_none(first, &SOURCES));
        // The first one alone, for chunks with a single source each.
        unreached.built(second, source);
        assert!(unreached.reached_none(first, &[source]));
        unreached.built(first, source);
        assert!(!unreached.reached_none(first, &[source]));
        assert!(unreached.reached_none(first, &[other]));
    }

    #[test]
    fn dead_source_blames_no_target() {
        let mut unreached = UnreachedSources::default();
        let ([dead, alive], _) = (SOURCES, TARGETS);
        for _ in 0..3 {
            for target in TARGETS {
                assert!(!unreached.reached_none(target, &[dead]));
                unreached.built(target, alive);
            }
        }
    }
}
