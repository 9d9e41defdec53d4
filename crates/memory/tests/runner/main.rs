//! Cores and images written here, byte by byte, and real ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod damage;
mod files;
mod images;
mod large;
mod layout;
mod packed;
mod real;
mod writer;
