//! `dfs version`.

use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::error::Result;

/// Arguments of `dfs version`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs version
  dfs version --client --json")]
pub(crate) struct VersionArgs {
    /// Print only the version of this program, without asking a coordinator.
    #[arg(long)]
    client: bool,
}

#[cfg(feature = "kube")]
impl VersionArgs {
    /// Returns true if no cluster is asked.
    pub(crate) fn is_local(&self) -> bool {
        self.client
    }
}

pub(crate) async fn run(args: VersionArgs, cx: &Context) -> Result<()> {
    let client = env!("CARGO_PKG_VERSION");
    let server = if args.client {
        None
    } else {
        cx.client.admin().status().await.ok().map(|status| status.version)
    };
    if cx.out.is_json {
        cx.out.json(&json!({ "client": client, "coordinator": server }));
        return Ok(());
    }
    cx.out.line(format_args!("dfs {client}"));
    if !args.client {
        cx.out.line(match &server {
            Some(version) => format!("coordinator {version}"),
            None => "coordinator: none reached".to_owned(),
        });
    }
    Ok(())
}
