//! The calls for extended attributes.

use bytes::Bytes;
use dfs_metadata::namespace::{Namespace, RemoveXattr, SetXattr};
use dfs_proto::{Failure, v1, wire};
use dfs_transport::Caller;
use dfs_types::XattrName;

use super::{convert, repeat};
use crate::failure;

pub(super) async fn get(
    namespace: &Namespace,
    (caller, request): (Caller, v1::GetXattrRequest),
) -> Result<v1::GetXattrResponse, Failure> {
    let target = wire::target("target", request.target)?;
    let name = wire::xattr_name("name", &request.name)?;
    let value = namespace.xattr(&caller.scope(), &target, !request.no_follow, &name).await;
    Ok(v1::GetXattrResponse { value: value.map_err(|error| failure::of(&error))? })
}

pub(super) async fn list(
    namespace: &Namespace,
    (caller, request): (Caller, v1::ListXattrsRequest),
) -> Result<v1::ListXattrsResponse, Failure> {
    let target = wire::target("target", request.target)?;
    let (scope, follow) = (caller.scope(), !request.no_follow);
    let xattrs: Vec<_> = if request.values {
        let found = namespace.xattr_values(&scope, &target, follow).await;
        found.map_err(|error| failure::of(&error))?.into_iter().collect()
    } else {
        let found = namespace.xattrs(&scope, &target, follow).await;
        let names = found.map_err(|error| failure::of(&error))?;
        names.into_iter().map(|name| (name, Bytes::new())).collect()
    };
    let wire = |(name, value): (XattrName, Bytes)| v1::Xattr { name: name.to_bytes(), value };
    Ok(v1::ListXattrsResponse { xattrs: xattrs.into_iter().map(wire).collect() })
}

pub(super) async fn set(
    namespace: &Namespace,
    (caller, mut request): (Caller, v1::SetXattrRequest),
) -> Result<v1::SetXattrResponse, Failure> {
    let slot = request.slot.take();
    let repeat = repeat("SetXattr", slot, &request)?;
    let set = SetXattr {
        target: wire::target("target", request.target)?,
        follow: !request.no_follow,
        name: wire::xattr_name("name", &request.name)?,
        value: wire::xattr_value("value", request.value)?,
        create: request.create,
        replace: request.replace,
    };
    let stat = namespace.set_xattr(&caller.scope(), &set, repeat.as_ref()).await;
    let stat = stat.map_err(|error| failure::of(&error))?;
    Ok(v1::SetXattrResponse { stat: Some(convert::stat(stat)) })
}

pub(super) async fn remove(
    namespace: &Namespace,
    (caller, mut request): (Caller, v1::RemoveXattrRequest),
) -> Result<v1::RemoveXattrResponse, Failure> {
    let slot = request.slot.take();
    let repeat = repeat("RemoveXattr", slot, &request)?;
    let remove = RemoveXattr {
        target: wire::target("target", request.target)?,
        follow: !request.no_follow,
        name: wire::xattr_name("name", &request.name)?,
    };
    let stat = namespace.remove_xattr(&caller.scope(), &remove, repeat.as_ref()).await;
    let stat = stat.map_err(|error| failure::of(&error))?;
    Ok(v1::RemoveXattrResponse { stat: Some(convert::stat(stat)) })
}
