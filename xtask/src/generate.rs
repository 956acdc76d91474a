//! Generates the sources of `dfs-proto` and `dfs-etcd` from `proto/`, and the definition of the
//! custom resource from `dfs-crd`. Pure Rust, no `protoc`; the results are committed, so that
//! nobody else needs to run this.

mod methods;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use protox::Compiler;

use crate::chart;
use crate::process::{cargo, output};

pub(crate) const USAGE: &str =
    "(generates sources from proto/, crds/ from dfs-crd, and parts of the chart)";

/// Sources generated together.
struct Set {
    protos: &'static [&'static str],
    /// Output directory.
    directory: &'static str,
    /// Output files, one per package.
    sources: &'static [&'static str],
    /// Additional parts, for the contract that dfs serves.
    server: Option<ServerFiles>,
}

/// Files that only servers need.
struct ServerFiles {
    /// The descriptors, for reflection.
    descriptors: &'static str,
    /// The enum of all rpcs.
    methods: &'static str,
}

const SETS: [Set; 2] = [
    // One file per service, and what they share.
    Set {
        protos: &[
            "dfs/v1/common.proto",
            "dfs/v1/coordinator.proto",
            "dfs/v1/datanode.proto",
            "dfs/v1/membership.proto",
            "dfs/v1/admin.proto",
        ],
        directory: "crates/dfs-proto/src/generated",
        sources: &["dfs.v1.rs"],
        server: Some(ServerFiles { descriptors: "dfs.v1.bin", methods: "methods.rs" }),
    },
    // The part of the etcd API that dfs uses, as a client only.
    Set {
        protos: &["etcd/v3/kv.proto", "etcd/v3/rpc.proto"],
        directory: "crates/dfs-etcd/src/generated",
        sources: &["mvccpb.rs", "etcdserverpb.rs"],
        server: None,
    },
];

/// Files printed by `dfs-crd`, with the argument for each. Its example runs in a separate process,
/// so that xtask does not depend on Kubernetes crates.
const DEFINITIONS: [(&str, &str); 3] = [
    ("crds/dfs.io_dfsclusters.yaml", "crd"),
    ("docs/kubernetes-fields.md", "fields"),
    ("docs/kubernetes-conditions.md", "reference"),
];

pub(crate) fn run(root: &Path, _arguments: &[String]) -> Result<()> {
    write_sources(root)?;
    for (file, what) in DEFINITIONS {
        let path = root.join(file);
        let text = definition(root, what)?;
        let directory = path.parent().context("every file is in a directory")?;
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {file}"))?;
    }
    // After the definitions, which the chart copies.
    chart::generate(root)
}

/// Fails if a committed file differs from the generated one. The definitions are checked by a test
/// of `dfs-crd`: its example alone would be compiled with different features than the tests,
/// including all its dependencies.
pub(crate) fn check(root: &Path) -> Result<()> {
    check_sources(root)?;
    chart::check(root)
}

fn definition(root: &Path, what: &str) -> Result<Vec<u8>> {
    let example = ["run", "--locked", "--quiet", "-p", "dfs-crd", "--example", "generate"];
    output(cargo(root, &example).args(["--", what]))
}

fn write_sources(root: &Path) -> Result<()> {
    for set in &SETS {
        let directory = root.join(set.directory);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        set.write(root, &directory)?;
    }
    Ok(())
}

fn check_sources(root: &Path) -> Result<()> {
    for set in &SETS {
        let fresh = tempfile::tempdir().context("cannot create a temporary directory")?;
        set.write(root, fresh.path())?;
        let of_server = set.server.iter().flat_map(|files| [&files.descriptors, &files.methods]);
        for output in set.sources.iter().chain(of_server) {
            let committed = root.join(set.directory).join(output);
            if fs::read(fresh.path().join(output))? != fs::read(&committed).unwrap_or_default() {
                bail!("{} differs from proto/: run cargo xtask generate", committed.display());
            }
        }
    }
    Ok(())
}

impl Set {
    fn write(&self, root: &Path, directory: &Path) -> Result<()> {
        if let Some(files) = &self.server {
            let compiler = self.compiler(root, false)?;
            fs::write(directory.join(files.descriptors), compiler.encode_file_descriptor_set())?;
            let methods = methods::source(&compiler.file_descriptor_set())?;
            fs::write(directory.join(files.methods), methods)?;
        }
        tonic_prost_build::configure()
            .bytes(".")
            .build_server(self.server.is_some())
            .out_dir(directory)
            .compile_fds(self.compiler(root, true)?.file_descriptor_set())?;
        Ok(())
    }

    fn compiler(&self, root: &Path, with_comments: bool) -> Result<Compiler> {
        let mut compiler = Compiler::new([root.join("proto")])?;
        compiler.include_imports(true).include_source_info(with_comments);
        compiler.open_files(self.protos)?;
        Ok(compiler)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::root;

    #[test]
    fn committed_sources_are_current() {
        check_sources(&root()).unwrap();
    }

    #[test]
    fn stale_file_is_detected() {
        let copy = tempfile::tempdir().unwrap();
        for proto in SETS.iter().flat_map(|set| set.protos) {
            let to = copy.path().join("proto").join(proto);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(root().join("proto").join(proto), to).unwrap();
        }
        assert!(check_sources(copy.path()).is_err());
        write_sources(copy.path()).unwrap();
        check_sources(copy.path()).unwrap();
        let common = copy.path().join("proto").join(SETS[0].protos[0]);
        let text = fs::read_to_string(&common).unwrap();
        fs::write(&common, text.replace("uint32 mode = 1;", "uint32 mode = 9;")).unwrap();
        assert!(check_sources(copy.path()).is_err());
    }

    #[test]
    fn all_parts_of_the_contract_have_comments() {
        let mut without = BTreeSet::new();
        let compiled =
            SETS.iter().map(|set| set.compiler(&root(), true).unwrap().file_descriptor_set());
        for file in compiled.flat_map(|set| set.file) {
            let mut commented = BTreeSet::new();
            for location in file.source_code_info.iter().flat_map(|info| &info.location) {
                if location.leading_comments.is_some() {
                    commented.insert(location.path.clone());
                }
            }
            // Paths as numbered in descriptor.proto: 4 messages, 5 enums, 6 services; in a message
            // 2 fields and 8 oneofs, in an enum or service 2 values or methods.
            let mut expect = |path: &[i32], name: &str| {
                if !commented.contains(path) {
                    without.insert(format!("{} {name}", file.name()));
                }
            };
            for (i, message) in (0..).zip(&file.message_type) {
                expect(&[4, i], message.name());
                for (j, field) in (0..).zip(&message.field) {
                    expect(&[4, i, 2, j], &format!("{}.{}", message.name(), field.name()));
                }
                for (j, one) in (0..).zip(&message.oneof_decl) {
                    // The compiler's oneof for `optional` has no source location.
                    if one.name().starts_with('_') {
                        continue;
                    }
                    expect(&[4, i, 8, j], &format!("{}.{}", message.name(), one.name()));
                }
            }
            for (i, kind) in (0..).zip(&file.enum_type) {
                expect(&[5, i], kind.name());
                for (j, value) in (0..).zip(&kind.value) {
                    expect(&[5, i, 2, j], value.name());
                }
            }
            for (i, service) in (0..).zip(&file.service) {
                expect(&[6, i], service.name());
                for (j, method) in (0..).zip(&service.method) {
                    expect(&[6, i, 2, j], &format!("{}.{}", service.name(), method.name()));
                }
            }
        }
        assert_eq!(without, BTreeSet::new());
    }
}
