//! What wraps every route. The order, outermost first, is in [`crate::app::layers`].

mod client_ip;
mod cors;
mod deadline;
mod headers;
mod observe;
mod panic;
mod request_id;
mod strangers;

pub use client_ip::{ClientIp, Peer};
pub use cors::cors;
pub use deadline::deadline;
pub use headers::security_headers;
pub use observe::{observe, refused};
pub use panic::on_panic;
pub use request_id::{REQUEST_ID, RequestId, TRACEPARENT, caller_of};
pub use strangers::{public, slow_down_strangers};
