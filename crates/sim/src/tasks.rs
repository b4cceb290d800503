//! tokio numbers the tasks of a process in one row, and when a runtime ends it drops its tasks in an
//! order that depends on the numbers' remainders. So that a crash closes a machine's sockets in the
//! same order each time, runs come one after the other and begin at a round number.

use parking_lot::{Mutex, MutexGuard};

static RUNNING: Mutex<()> = Mutex::new(());

/// More than the lists that tokio spreads the tasks of a one-threaded runtime over (4 in 1.54).
const ROUND: u64 = 64;

/// Waits until no other run is under way in this process, and rounds the number of the next task.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    let alone = RUNNING.lock();
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().expect("it needs nothing of the system");
    loop {
        let number: u64 = runtime.spawn(async {}).id().to_string().parse().expect("tokio prints a number");
        if number % ROUND == ROUND - 1 {
            return alone;
        }
    }
}
