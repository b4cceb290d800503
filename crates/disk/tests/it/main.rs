//! The disk seam: the real one in a temporary folder, the fake one by its properties.
#![allow(clippy::unwrap_used)]

mod crash;
mod real;
