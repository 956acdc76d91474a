//! Every rpc, for every access that a caller may have.

use std::convert::Infallible;

use futures_util::FutureExt as _;
use tower::service_fn;

use super::*;

const SERVERS: [Server; 2] = [Server::Coordinator, Server::Datanode];

fn is_allowed(server: Server, method: Method, access: Option<Access>) -> bool {
    let caller = Caller { identity: Identity::Anonymous, access, method };
    Gate::new(server, Security::Plaintext).check(&caller).is_ok()
}

/// Returns the lowest access that a call is admitted with.
fn needed(server: Server, method: Method) -> Option<Access> {
    let levels = [None, Some(Access::Read), Some(Access::Write), Some(Access::Admin)];
    let allowed: Vec<_> = levels.map(|level| is_allowed(server, method, level)).into();
    let first =
        allowed.iter().position(|is_allowed| *is_allowed).expect("an admin may call everything");
    assert!(allowed[first..].iter().all(|is_allowed| *is_allowed), "{method:?}: {allowed:?}");
    levels[first]
}

#[test]
fn each_call_requires_the_access_of_its_rule() {
    for method in Method::ALL.iter().copied() {
        for server in SERVERS {
            let expected = match (rule(method), server) {
                (Rule::Anyone | Rule::Datanode, _)
                | (Rule::Session | Rule::Order, Server::Datanode) => None,
                (Rule::AnyGrant, _) => Some(Access::Read),
                (Rule::Session | Rule::Order | Rule::Capability(_), Server::Coordinator) => {
                    Some(Access::Read)
                }
                (Rule::Grant(access), _) | (Rule::Capability(access), Server::Datanode) => {
                    Some(access)
                }
            };
            assert_eq!(needed(server, method), expected, "{method:?} at a {server:?}");
        }
    }
}

/// Returns the code of a request for `path` to a server behind the gate, and the caller that the
/// handler saw.
fn call(path: &str) -> (tonic::Code, Option<Caller>) {
    let mut handled = None;
    let handler = service_fn(|request: Request<()>| {
        handled = Caller::of(request.extensions()).ok();
        ready(Ok::<_, Infallible>(Response::new(())))
    });
    let mut gated = Gate::new(Server::Coordinator, Security::Plaintext).layer(handler);
    let request = Request::builder().uri(path).body(()).expect("a request");
    let answer = gated.call(request).now_or_never().expect("an immediate reply").expect("no error");
    let code = Status::from_header_map(answer.headers()).map_or(tonic::Code::Ok, |s| s.code());
    (code, handled)
}

#[test]
fn handler_sees_its_caller() {
    for method in Method::ALL {
        let (code, caller) = call(method.path());
        assert_eq!(code, tonic::Code::Ok);
        let caller = caller.expect("a caller");
        assert_eq!((caller.method(), caller.identity()), (*method, &Identity::Anonymous));
        assert_eq!(caller.scope().require(Access::Admin), Ok(()));
    }
}

#[test]
fn unknown_call_reaches_no_handler() {
    for path in ["/dfs.v1.Admin/Nothing", "/dfs.v1.Admin", "/", "/dfs.v1.Admin/Init/"] {
        assert_eq!(call(path), (tonic::Code::Unimplemented, None), "{path}");
    }
}

#[test]
fn request_that_bypassed_the_gate_is_refused() {
    let refused = split(tonic::Request::new(())).expect_err("no caller");
    assert_eq!(refused.code(), tonic::Code::Internal);
}
