//! HTTP for the services that answer it: a server that starts before it serves and stops gracefully, and answers that
//! say what is wrong.

mod body;
mod problem;
mod server;

pub use body::json_body;
pub use problem::Problem;
pub use server::{HttpListener, HttpServer};
