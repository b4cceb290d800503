//! Panics of a run's tasks: the network's runtimes swallow them, and each is a defect.

use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// This thread runs `seed` from now on. Where panics abort, the seed is at least printed.
pub(crate) fn expect(seed: u64) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            eprintln!("seed {}:", SEED.get());
            default(panic);
            PANICKED.with_borrow_mut(|panicked| {
                panicked.get_or_insert_with(|| panic.to_string());
            });
        }));
    });
    SEED.set(seed);
    PANICKED.set(None);
}

/// What has panicked on this thread since the last time.
pub(crate) fn take() -> Option<String> {
    PANICKED.take()
}
