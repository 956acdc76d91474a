//! `dfs xattr`.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use clap::{Args, Subcommand};
use dfs_client::{Follow, XattrMode, XattrName};
use serde_json::json;

use crate::context::Context;
use crate::error::{Error, Result, remote_path};
use crate::json;
use crate::printable::printable;

/// Arguments of `dfs xattr`.
#[derive(Debug, Args)]
#[command(after_help = "\
Names start with user., trusted. or security., or are one of the two system.posix_acl_ names. An
entry has at most 64 attributes of at most 64 KiB each. Attributes whose names start with user. exist
on files and directories only. `get` writes the bytes of a value unchanged; on a terminal, bytes
that are not text are escaped.

Examples:
  dfs xattr set /report.pdf user.author 'Ada Lovelace'
  dfs xattr get /report.pdf user.author
  dfs xattr get /report.pdf user.thumbnail > thumbnail.png
  dfs xattr list /report.pdf
  dfs xattr remove /report.pdf user.author")]
pub(crate) struct XattrArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Set an attribute
    #[command(after_help = "\
Examples:
  dfs xattr set /report.pdf user.author 'Ada Lovelace'
  dfs xattr set --create /report.pdf user.reviewed yes")]
    Set {
        /// The file, directory or symlink.
        path: OsString,
        /// Name of the attribute.
        name: OsString,
        /// Its value.
        value: OsString,
        /// Fail if it exists.
        #[arg(long, conflicts_with = "replace")]
        create: bool,
        /// Fail if it does not exist.
        #[arg(long)]
        replace: bool,
    },
    /// Write the value of an attribute to stdout
    #[command(after_help = "\
Examples:
  dfs xattr get /report.pdf user.author
  dfs xattr get /report.pdf user.thumbnail > thumbnail.png")]
    Get {
        /// The file, directory or symlink.
        path: OsString,
        /// Name of the attribute.
        name: OsString,
    },
    /// List the names of all attributes
    #[command(after_help = "\
Examples:
  dfs xattr list /report.pdf")]
    List {
        /// The file, directory or symlink.
        path: OsString,
    },
    /// Remove an attribute
    #[command(after_help = "\
Examples:
  dfs xattr remove /report.pdf user.author")]
    Remove {
        /// The file, directory or symlink.
        path: OsString,
        /// Name of the attribute.
        name: OsString,
    },
}

pub(crate) async fn run(args: XattrArgs, cx: &Context) -> Result<()> {
    match args.action {
        Action::Set { path, name, value, create, replace } => {
            let mode = match (create, replace) {
                (true, _) => XattrMode::Create,
                (_, true) => XattrMode::Replace,
                _ => XattrMode::Set,
            };
            let (path, name) = (remote_path(&path)?, attribute_name(name)?);
            cx.client.set_xattr(&path, &name, value.into_vec(), mode, Follow::Yes).await?;
            cx.out.done(&json!({ "path": printable(path.as_bytes()), "name": name.to_string() }));
        }
        Action::Get { path, name } => {
            let (path, name) = (remote_path(&path)?, attribute_name(name)?);
            let value = cx.client.xattr(&path, &name, Follow::Yes).await?;
            if cx.out.is_json {
                cx.out.json(&json::xattr(&name, &value));
            } else if io::stdout().is_terminal() {
                cx.out.line(printable(&value));
            } else {
                cx.out.bytes(&value);
            }
        }
        Action::List { path } => {
            let names = cx.client.xattrs(&remote_path(&path)?, Follow::Yes).await?;
            for name in names {
                if cx.out.is_json {
                    cx.out.json(&json!({ "name": name.to_string() }));
                } else {
                    cx.out.line(&name);
                }
            }
        }
        Action::Remove { path, name } => {
            let (path, name) = (remote_path(&path)?, attribute_name(name)?);
            cx.client.remove_xattr(&path, &name, Follow::Yes).await?;
            cx.out.done(&json!({ "path": printable(path.as_bytes()), "name": name.to_string() }));
        }
    }
    Ok(())
}

fn attribute_name(name: OsString) -> Result<XattrName> {
    let shown = printable(name.as_bytes());
    XattrName::new(name.into_vec()).map_err(|error| Error::usage(format!("{shown}: {error}")))
}
