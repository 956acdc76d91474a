//! The rpcs of the contract.

include!("generated/methods.rs");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk;

    #[test]
    fn every_path_maps_back_to_its_method() {
        for method in Method::ALL {
            assert_eq!(Method::from_path(method.path()), Some(*method));
        }
        assert_eq!(Method::from_path("/dfs.v1.Coordinator/Nothing"), None);
        assert_eq!(Method::from_path(""), None);
    }

    #[test]
    fn bulk_calls_have_the_paths_of_the_contract() {
        assert_eq!(Method::from_path(bulk::CHUNK_DATA_STREAM), Some(Method::ChunkDataStream));
        assert_eq!(Method::from_path(bulk::RETRIEVE_CHUNK), Some(Method::RetrieveChunk));
    }
}
