//! The client against a cluster of fakes that fail on demand, and against the servers of this workspace.

#![allow(clippy::unwrap_used)]

mod appends;
mod fake;
mod fake_node;
mod faults;
mod namenodes;
mod real;
mod recovery;
mod round_trip;

use bytes::Bytes;

/// Bytes that repeat with a period that no packet, chunk or block has.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|i| (i % 251) as u8 ^ (i / 64_513) as u8).collect::<Vec<u8>>().into()
}

/// Whole comparison, with a short message.
#[track_caller]
fn assert_same(got: &[u8], expected: &[u8]) {
    assert_eq!(got.len(), expected.len());
    let differs = got.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "first difference");
}
