//! Everything between processes that is not what they say: sockets, channels, servers, request
//! ids, and the one function that says who may do what.
//!
//! Channels are made in [`Channels`] and servers run by [`serve`], nowhere else, so that TLS will
//! be a matter of one crate.

mod answer;
mod authorise;
mod channels;
mod dial;
mod memory;
mod network;
mod request_id;
mod server;

pub use authorise::{Action, Denied, Identity, allow};
pub use channels::{AddressError, Channels, ClientChannel, Lane, Security};
pub use dial::{ConnectError, DialError, connect_error};
pub use memory::MemoryNetwork;
pub use network::{CONNECT_TIMEOUT, Io, Listener, Network, Stream, TcpNetwork, listen_code};
pub use request_id::{
    CallHeaders, NODE_ID_HEADER, REQUEST_ID_HEADER, current_request_id, in_request,
    spawn_in_request, with_request_id,
};
pub use server::{Observer, serve};
