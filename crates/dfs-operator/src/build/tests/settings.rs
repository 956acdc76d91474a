//! The processes can parse the settings rendered for them.

use dfs_types::ClusterId;

use super::fixtures::{FULL, MINIMAL, cluster, find, full_embedded, id, render};
use crate::kind::Kind;

fn text(yaml: &dfs_crd::DfsCluster, component: &str) -> String {
    let objects = render(yaml);
    let config = find(&objects, Kind::ConfigMap, &format!("demo-{component}"));
    config["data"][format!("{component}.yaml")].as_str().unwrap().to_owned()
}

#[test]
fn datanode_parses_its_settings() {
    for (cluster, percent) in [(cluster(MINIMAL), 5), (cluster(FULL), 7)] {
        let text = text(&cluster, "datanode");
        let mut settings: dfs_datanode::Settings = serde_saphyr::from_str(&text).unwrap();
        settings.join_secret = dfs_runtime::JoinSecret::new("word");
        settings.validate().unwrap();
        assert_eq!(settings.headroom_percent, percent);
    }
}

#[test]
fn coordinator_parses_its_settings() {
    for cluster in [cluster(MINIMAL), cluster(FULL), full_embedded()] {
        let text = text(&cluster, "coordinator");
        let mut settings: dfs_coordinator::Settings = serde_saphyr::from_str(&text).unwrap();
        settings.join_secret = dfs_runtime::JoinSecret::new("word");
        settings.validate().unwrap();
        assert_eq!(settings.cluster_id.parse::<ClusterId>().unwrap(), id());
        assert!(!settings.auto_admit);
        // Stored in the metadata, and changed there.
        assert_eq!((settings.replication_factor, settings.min_write_replicas), (None, None));
    }
}
