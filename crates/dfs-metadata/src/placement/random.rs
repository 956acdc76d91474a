use super::{Candidate, NodeSelector, Wish};
use dfs_types::{NodeId, Random};
/// See the module.
#[derive(Debug, Default)]
pub struct RandomNodes(());
impl NodeSelector for RandomNodes {
    fn select(&self, _c: &[Candidate], _w: &Wish<'_>, _r: &dyn Random) -> Vec<NodeId> {
        todo!()
    }
}
