//! What wraps every route. The order, outermost first, is in [`crate::app::layers`].

mod allowance;
mod client_ip;
mod cors;
mod deadline;
mod headers;
mod heads;
mod observe;
mod panic;
mod request_id;
mod strangers;

pub use allowance::allowance;
pub use client_ip::{ClientIp, Peer};
pub use cors::{Cors, cors};
pub use deadline::deadline;
pub use headers::security_headers;
pub use heads::{MAX_HEAD_BYTES, heads};
pub use observe::{observe, refused};
pub use panic::on_panic;
pub use request_id::{REQUEST_ID, RequestId, TRACEPARENT, caller_of};
pub use strangers::{public, slow_down_strangers};
