//! Two of the three seams (DESIGN D7): the network and the clock, and with them entropy. Servers
//! and clients reach the world through an [`Env`] only, so that a test can run a whole cluster in
//! one thread from one seed.
//!
//! Invariant: nothing above this crate calls the operating system for time, entropy or sockets.

mod clock;
mod entropy;
mod stream;
#[cfg(feature = "sim")]
mod tap;

pub use clock::Clock;
pub use entropy::Entropy;
pub use stream::{Listener, Net, ReadHalf, Stream, WriteHalf};
#[cfg(feature = "sim")]
pub use tap::Tap;

/// What a server or client is given to reach the world through. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Env {
    /// Sockets.
    pub net: Net,
    /// Time.
    pub clock: Clock,
    /// Random numbers.
    pub entropy: Entropy,
}

impl Env {
    /// The real network, clock and entropy.
    pub fn real() -> Env {
        Env { net: Net::real(), clock: Clock::real(), entropy: Entropy::from_system() }
    }
}
