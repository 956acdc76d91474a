//! TLS and users.

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dfs_engines::{OpenError, open};
use dfs_etcd::test_server::{Certificates, Cluster, Options};
use dfs_metadata::engine::{Commit, Engine, EngineError, Write};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{DEADLINE, fresh_prefix};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Creates a certificate for this host, and its key.
fn issue(folder: &Path, name: &str, by: &Authority) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, by).unwrap();
    let files = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    fs::write(&files.0, certificate.pem()).unwrap();
    fs::write(&files.1, key.serialize_pem()).unwrap();
    files
}

/// Writes, reads, watches and takes a lease.
async fn exercise(engine: &dyn Engine) {
    let from = engine.snapshot().await.unwrap().revision();
    let mut watch = engine.watch(Bytes::new(), from).await.unwrap();
    let writes = vec![Write::Put(Bytes::from_static(b"a"), Bytes::from_static(b"1"))];
    engine.commit_batch(vec![Commit { conditions: vec![], writes }]).await.unwrap();
    let found = engine.snapshot().await.unwrap().get(b"a").await.unwrap();
    assert_eq!(found.unwrap().value, "1");
    let change = timeout(DEADLINE, watch.next()).await.unwrap().unwrap();
    assert_eq!(change.key, "a");
    for _ in 0..2 {
        assert!(engine.lease("worker", "one", DEADLINE, None).await.unwrap().is_some());
    }
}

async fn refused(url: &str) -> EngineError {
    let opened = timeout(DEADLINE, open(url)).await.expect("it ends");
    match opened.err().expect("it is refused") {
        OpenError::Engine { source, .. } => source,
        error => panic!("{error}: {:?}", error.source()),
    }
}

#[tokio::test]
async fn tls_authenticates_both_sides() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let ours = authority();
    fs::write(at("ca.pem"), ours.pem()).unwrap();
    fs::write(at("other.pem"), authority().pem()).unwrap();
    let (certificate, key) = issue(folder.path(), "server", &ours);
    let (own, own_key) = issue(folder.path(), "client", &ours);
    let tls = Certificates { authority: at("ca.pem"), certificate, key };
    let cluster = Cluster::with(Options { tls: Some(tls), ..Options::default() }).await;

    let place = format!("{}/{}", cluster.authority(), fresh_prefix());
    let with = |authority: &str| format!("etcds://{place}?ca={}", at(authority).display());
    let shown = format!("cert={}&key={}", own.display(), own_key.display());
    exercise(&*open(&format!("{}&{shown}", with("ca.pem"))).await.unwrap()).await;

    // Retried until the time limit, as a member may be starting.
    let unknown = with("ca.pem");
    let untrusted = format!("{}&{shown}", with("other.pem"));
    let plain = format!("etcd://{place}");
    let (unknown, untrusted, plain) =
        tokio::join!(refused(&unknown), refused(&untrusted), refused(&plain));
    for (error, says) in [(unknown, ""), (untrusted, "certificate"), (plain, "")] {
        assert!(matches!(error, EngineError::Unavailable(_)), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn user_needs_the_password() {
    let mut cluster = Cluster::start(1).await;
    cluster.enable_users("right").await;
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let place = format!("etcd://{}/{}", cluster.authority(), fresh_prefix());
    let with = |user: &str, password: &str| format!("{place}?user={user}&password-file={password}");
    let right = file("right", "right\n");
    let engine = open(&with("root", &right)).await.unwrap();
    exercise(&*engine).await;

    let wrong = file("wrong", "wrong");
    for url in [place.clone(), with("root", &wrong), with("nobody", &right)] {
        let error = refused(&url).await;
        assert!(matches!(error, EngineError::Refused(_)), "{url}: {error:?}");
    }

    // A restarted member has lost all tokens.
    cluster.kill(0);
    cluster.restart(0);
    cluster.ready(0).await;
    exercise(&*engine).await;
}
