//! A namespace that denies all traffic.

use anyhow::{Result, ensure};
use dfs_e2e::{ClientPod, case};

const DENY_ALL: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: deny-all
spec:
  podSelector: {}
  policyTypes: [Ingress]
";

#[tokio::test]
async fn e38_only_clients_reach_the_cluster() -> Result<()> {
    case("e38", async |case| {
        // Every namespace of the tests enforces the profile "restricted".
        let deny = case.env.kubectl(&["apply", "-n", &case.namespace, "-f", "-"]).stdin(DENY_ALL);
        deny.run().await?;
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;

        let datanode = format!("dfs-datanode-0.dfs-datanodes.{}.svc:7080", case.namespace);
        let coordinator = format!("dfs-coordinator.{}.svc:7070", case.namespace);
        let client = ClientPod::start(&cluster).await?;
        let elsewhere = case.make_namespace("e38-stranger").await?;
        let stranger = ClientPod::start_in(&cluster, &elsewhere, "stranger").await?;
        for address in [&datanode, &coordinator] {
            ensure!(client.can_connect(address).await?, "a client cannot reach {address}");
            ensure!(!stranger.can_connect(address).await?, "a stranger can reach {address}");
        }
        Ok(())
    })
    .await
}
