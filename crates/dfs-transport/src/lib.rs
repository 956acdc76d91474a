//! Everything between processes except their messages: sockets, channels, servers, request ids, and
//! the gate that every call to a server passes.
//!
//! Channels are created only by [`Channels`] and servers run only by [`serve`], so that TLS will
//! concern this crate alone.

mod answer;
mod channels;
mod connection;
mod connections;
mod dial;
mod gate;
mod memory;
mod network;
mod observer;
mod refusal;
mod request_id;
mod server;

pub use channels::{AddressError, Channels, ClientChannel, Lane, Security};
pub use connections::ConnectionLimits;
pub use dial::{ConnectError, DialError, call, connect_error};
pub use gate::{Caller, Gate, Identity, Rule, Server, rule, split};
pub use memory::MemoryNetwork;
pub use network::{CONNECT_TIMEOUT, Io, Listener, Network, Stream, TcpNetwork, listen_code};
pub use observer::Observer;
pub use refusal::Refusal;
pub use request_id::{
    CallHeaders, NODE_ID_HEADER, REQUEST_ID_HEADER, current_request_id, in_request,
    spawn_in_request, with_request_id,
};
pub use server::serve;
