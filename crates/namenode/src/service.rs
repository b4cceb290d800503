//! The one authoriser (D8): every front end reaches the namespace through it.

/// The NameNode's functions, typed and independent of any front end.
#[derive(Debug)]
pub struct Service {
    _private: (),
}
