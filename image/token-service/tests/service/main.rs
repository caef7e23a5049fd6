//! The whole service on the loopback, with a real database, as clients meet it.

mod api;
mod endpoint;
mod faults;
mod logins;
mod openapi;
mod registry;
mod rotation;
mod running;
mod tags;
