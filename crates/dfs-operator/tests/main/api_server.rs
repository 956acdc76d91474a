//! An in-memory API server: enough of it for the operator, and a log of requests.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Bytes;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// Clones share the server.
#[derive(Clone, Default)]
pub(crate) struct ApiServer(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    version: u64,
    calls: Vec<Call>,
    is_down: bool,
    refused: Option<(String, u16)>,
    /// Number of changes after which the operator gets no more replies.
    left: Option<usize>,
    changes: usize,
}

/// Location of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    plural: String,
    namespace: String,
    name: String,
}

/// A request received.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

impl Call {
    pub(crate) fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

struct Target {
    plural: String,
    namespace: Option<String>,
    name: Option<String>,
    is_status: bool,
}

impl ApiServer {
    pub(crate) fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Stores an object, as a user or another controller would.
    pub(crate) fn put(&self, plural: &str, object: Value) -> Value {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key =
            Key { plural: plural.to_owned(), namespace: text("namespace"), name: text("name") };
        self.state().store(key, object)
    }

    pub(crate) fn get(&self, plural: &str, name: &str) -> Option<Value> {
        let state = self.state();
        let found = state.objects.iter().find(|(key, _)| key.plural == plural && key.name == name);
        found.map(|(_, object)| object.clone())
    }

    pub(crate) fn list(&self, plural: &str) -> Vec<Value> {
        let state = self.state();
        let of_kind = state.objects.iter().filter(|(key, _)| key.plural == plural);
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    pub(crate) fn remove(&self, plural: &str, name: &str) {
        self.state().objects.retain(|key, _| !(key.plural == plural && key.name == name));
    }

    /// Returns the requests so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub(crate) fn writes(&self) -> Vec<Call> {
        self.calls().into_iter().filter(Call::is_write).collect()
    }

    pub(crate) fn forget_calls(&self) {
        self.state().calls.clear();
    }

    /// Returns another server in the same state.
    pub(crate) fn fork(&self) -> Self {
        let mut state = self.state().clone();
        state.calls.clear();
        Self(Arc::new(Mutex::new(state)))
    }

    /// Makes the change with this number, counted from 1, the last one: it is carried out, but its
    /// caller gets no reply. `None` removes the limit.
    pub(crate) fn cut_after(&self, changes: Option<usize>) {
        let mut state = self.state();
        (state.left, state.changes) = (changes, 0);
    }

    /// Returns the number of changes since [`Self::cut_after`].
    pub(crate) fn changes(&self) -> usize {
        self.state().changes
    }

    /// Returns true if the last change was made.
    pub(crate) fn is_cut(&self) -> bool {
        self.state().left == Some(0)
    }

    /// Counts a change, here or at a coordinator. Never returns after the last change.
    pub(crate) async fn changed(&self) {
        let is_last = {
            let mut state = self.state();
            state.changes += 1;
            state.left = state.left.map(|left| left.saturating_sub(1));
            state.left == Some(0)
        };
        if is_last {
            std::future::pending::<()>().await;
        }
    }

    /// Returns all objects with their plurals.
    pub(crate) fn everything(&self) -> Vec<(String, Value)> {
        let state = self.state();
        state.objects.iter().map(|(key, object)| (key.plural.clone(), object.clone())).collect()
    }

    /// Stops replying to anything, or resumes.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// Refuses writes to this plural with this code.
    pub(crate) fn refuse(&self, plural: &str, code: u16) {
        self.state().refused = Some((plural.to_owned(), code));
    }

    fn answer(&self, request: &http::request::Parts, body: &Bytes) -> (u16, Value) {
        let path = request.uri.path().to_owned();
        let target = Target::of(&path);
        let query = request.uri.query().unwrap_or_default().to_owned();
        let content_type = request.headers.get("content-type");
        let content_type =
            content_type.and_then(|c| c.to_str().ok()).unwrap_or_default().to_owned();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let method = request.method.clone();
        let mut state = self.state();
        state.calls.push(Call {
            method: method.clone(),
            path,
            query: query.clone(),
            content_type: content_type.clone(),
            body: body.clone(),
        });
        if let Some((plural, code)) = &state.refused
            && *plural == target.plural
            && method != Method::GET
        {
            return status(*code, "Invalid");
        }
        match method {
            Method::GET => state.read(&target, &query),
            Method::POST => state.create(&target, body),
            Method::PUT => state.replace(&target, body),
            Method::PATCH => state.patch(&target, &body, content_type.contains("apply")),
            Method::DELETE => state.delete(&target, &body),
            _ => status(405, "MethodNotAllowed"),
        }
    }
}

impl Target {
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        Self {
            plural: rest[0].to_owned(),
            namespace,
            name: rest.get(1).map(|name| (*name).to_owned()),
            is_status: rest.get(2) == Some(&"status"),
        }
    }

    fn key(&self, name: &str) -> Key {
        Key {
            plural: self.plural.clone(),
            namespace: self.namespace.clone().unwrap_or_default(),
            name: name.to_owned(),
        }
    }
}

impl State {
    fn store(&mut self, key: Key, mut object: Value) -> Value {
        let before = self.objects.get(&key);
        let metadata = |object: &Value, field: &str| object["metadata"].get(field).cloned();
        let generation = before.and_then(|b| b["metadata"]["generation"].as_i64()).unwrap_or(0);
        let is_new_spec = before.is_none_or(|before| before["spec"] != object["spec"]);
        let uid = before.and_then(|before| metadata(before, "uid"));
        let uid = uid.or_else(|| metadata(&object, "uid"));
        object["metadata"]["uid"] =
            uid.unwrap_or_else(|| format!("uid-{}", self.version + 1).into());
        object["metadata"]["generation"] = (generation + i64::from(is_new_spec)).into();
        if let Some(before) = before {
            object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            if *before == object {
                return object;
            }
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let finalizers = object["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
        if object["metadata"].get("deletionTimestamp").is_some() && finalizers == 0 {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, object.clone());
        }
        object
    }

    fn read(&self, target: &Target, query: &str) -> (u16, Value) {
        if let Some(name) = &target.name {
            return match self.objects.get(&target.key(name)) {
                Some(object) => (200, object.clone()),
                None => status(404, "NotFound"),
            };
        }
        if target.plural == "servicemonitors" {
            return status(404, "NotFound");
        }
        let query = query.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/");
        let selector = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector="));
        let is_selected = |object: &Value| {
            selector.unwrap_or_default().split(',').filter(|s| !s.is_empty()).all(|pair| {
                let (key, value) = pair.split_once('=').unwrap();
                object["metadata"]["labels"].get(key).and_then(Value::as_str) == Some(value)
            })
        };
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(key, _)| key.plural == target.plural)
            .filter(|(key, _)| target.namespace.as_ref().is_none_or(|ns| *ns == key.namespace))
            .map(|(_, object)| object)
            .filter(|object| is_selected(object))
            .collect();
        let metadata = json!({"resourceVersion": self.version.to_string()});
        (200, json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items}))
    }

    fn create(&mut self, target: &Target, mut object: Value) -> (u16, Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = target.key(&name);
        if self.objects.contains_key(&key) {
            return status(409, "AlreadyExists");
        }
        let strings = object["stringData"].take();
        for (name, value) in strings.as_object().into_iter().flatten() {
            object["data"][name] = base64(value.as_str().unwrap_or_default()).into();
        }
        object["metadata"]["namespace"] = key.namespace.clone().into();
        (201, self.store(key, object))
    }

    fn replace(&mut self, target: &Target, object: Value) -> (u16, Value) {
        let key = target.key(target.name.as_deref().unwrap_or_default());
        let Some(before) = self.objects.get(&key) else { return status(404, "NotFound") };
        if is_stale(before, &object) {
            return status(409, "Conflict");
        }
        (200, self.store(key, object))
    }

    fn patch(&mut self, target: &Target, patch: &Value, is_apply: bool) -> (u16, Value) {
        let key = target.key(target.name.as_deref().unwrap_or_default());
        let before = self.objects.get(&key).cloned();
        let Some(mut object) =
            before.or_else(|| (is_apply && !target.is_status).then(|| json!({})))
        else {
            return status(404, "NotFound");
        };
        let uid = &patch["metadata"]["uid"];
        if is_stale(&object, patch) || !uid.is_null() && *uid != object["metadata"]["uid"] {
            return status(409, "Conflict");
        }
        if target.is_status {
            // Fields that were applied before, but no longer are, are removed.
            if is_apply {
                object["status"] = patch["status"].clone();
            } else {
                merge(&mut object["status"], &patch["status"]);
            }
        } else {
            merge(&mut object, patch);
        }
        object["metadata"]["name"] = key.name.clone().into();
        object["metadata"]["namespace"] = key.namespace.clone().into();
        (200, self.store(key, object))
    }

    fn delete(&mut self, target: &Target, options: &Value) -> (u16, Value) {
        let key = target.key(target.name.as_deref().unwrap_or_default());
        let Some(object) = self.objects.get(&key).cloned() else { return status(404, "NotFound") };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return status(409, "Conflict");
        }
        self.objects.remove(&key);
        (200, json!({"apiVersion": "v1", "kind": "Status", "status": "Success", "code": 200}))
    }
}

impl tower::Service<Request<Body>> for ApiServer {
    type Response = Response<UnsyncBoxBody<Bytes, Infallible>>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            if server.state().is_down {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            let (parts, body) = request.into_parts();
            if parts.uri.query().unwrap_or_default().contains("watch=true") {
                // A watch without events: the tests rely on timers.
                let silence = http_body_util::StreamBody::new(futures_util::stream::pending());
                return Ok(Response::new(silence.boxed_unsync()));
            }
            let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
            let (code, answer) = server.answer(&parts, &body);
            // Events are best effort and do not count as changes.
            if parts.method != Method::GET && !parts.uri.path().contains("/events") {
                server.changed().await;
            }
            let body = Full::new(Bytes::from(answer.to_string())).boxed_unsync();
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            Ok(response)
        })
    }
}

fn is_stale(there: &Value, given: &Value) -> bool {
    let version =
        |object: &Value| object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    version(given).is_some_and(|given| version(there) != Some(given))
}

fn status(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
        "reason": reason, "message": format!("refused: {reason}"),
    });
    (code, status)
}

fn merge(there: &mut Value, patch: &Value) {
    match (there, patch) {
        (Value::Object(there), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    there.remove(key);
                } else {
                    merge(there.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (there, patch) => *there = patch.clone(),
    }
}

/// Encodes like the `data` of Secrets.
fn base64(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}
