//! Labels of objects, and selectors of pods.

use std::collections::BTreeMap;

use dfs_crd::Image;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Component;

/// Maximum length of a label value.
const VALUE_LEN_MAX: usize = 63;
/// Length of the digest prefix that identifies a version.
const DIGEST_LEN: usize = 12;

pub(super) type Labels = BTreeMap<String, String>;

impl Component {
    /// Returns the value of the label `app.kubernetes.io/component`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Datanode => "datanode",
        }
    }
}

/// Returns the selector of all pods of a cluster. Never changes: selectors are immutable.
pub(super) fn of_cluster(cluster: &str) -> Labels {
    [("app.kubernetes.io/name", "dfs"), ("app.kubernetes.io/instance", cluster)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Returns the selector of the pods of a component. Never changes either.
pub(super) fn of_component(cluster: &str, component: Component) -> Labels {
    let mut labels = of_cluster(cluster);
    labels.insert("app.kubernetes.io/component".to_owned(), component.as_str().to_owned());
    labels
}

/// Returns the labels of objects that outlive versions: claims and the join Secret.
pub(super) fn of_lasting(cluster: &str, component: Component) -> Labels {
    let mut labels = of_component(cluster, component);
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "dfs-operator".to_owned());
    labels.insert("app.kubernetes.io/part-of".to_owned(), "dfs".to_owned());
    labels
}

/// Returns the labels of all other objects.
pub(super) fn of_object(cluster: &str, component: Component, image: &Image) -> Labels {
    let mut labels = of_lasting(cluster, component);
    labels.insert("app.kubernetes.io/version".to_owned(), version(image));
    labels
}

pub(super) fn selector(labels: Labels) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

/// Returns the version of an image as a label value.
pub(super) fn version(image: &Image) -> String {
    let digest = image.digest.as_deref().and_then(|digest| digest.strip_prefix("sha256:"));
    let text: String = match digest {
        Some(digest) => digest.chars().take(DIGEST_LEN).collect(),
        None => image.tag.chars().take(VALUE_LEN_MAX).collect(),
    };
    // A tag may start and end with characters that a label value must not.
    text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}
