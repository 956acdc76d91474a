//! The processes can read the settings that are rendered for them.

use super::fixtures::{FULL, MINIMAL, cluster, find, render};
use crate::kind::Kind;

fn text(yaml: &dfs_crd::DfsCluster, component: &str) -> String {
    let objects = render(yaml);
    let config = find(&objects, Kind::ConfigMap, &format!("demo-{component}"));
    config["data"][format!("{component}.yaml")].as_str().unwrap().to_owned()
}

#[test]
fn a_datanode_reads_its_settings() {
    for (cluster, percent) in [(cluster(MINIMAL), 5), (cluster(FULL), 7)] {
        let text = text(&cluster, "datanode");
        let mut settings: dfs_datanode::Settings = serde_saphyr::from_str(&text).unwrap();
        settings.join_secret = dfs_datanode::JoinSecret::new("word");
        settings.validate().unwrap();
        assert_eq!(settings.headroom_percent, percent);
    }
}
