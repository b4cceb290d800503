//! A bar for transfers that take a while, on a terminal only, on standard error.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A transfer shorter than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(400);

/// Bytes done and to do, of all transfers of a verb. Clones share the bar.
#[derive(Clone, Debug)]
pub struct Progress {
    state: Option<Arc<Mutex<State>>>,
}

#[derive(Debug)]
struct State {
    begun: Option<Instant>,
    done: u64,
    total: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A bar that shows once something takes a while, if there is a terminal to show it on.
    pub fn new() -> Progress {
        // Standard output on the terminal too may be a file's content: a bar would run through it.
        let watched = std::io::stderr().is_terminal();
        let state = State { begun: None, done: 0, total: 0, bar: None };
        Progress { state: watched.then(|| Arc::new(Mutex::new(state))) }
    }

    /// So many bytes more are to do.
    pub fn expect(&self, bytes: u64) {
        let Some(state) = &self.state else { return };
        let mut state = state.lock();
        state.total += bytes;
        if let Some(bar) = &state.bar {
            bar.set_length(state.total);
        }
    }

    /// So many bytes more are done, of `name`.
    pub fn advance(&self, bytes: u64, name: &str) {
        let Some(state) = &self.state else { return };
        let mut state = state.lock();
        state.done += bytes;
        let begun = *state.begun.get_or_insert_with(Instant::now);
        if state.bar.is_none() && begun.elapsed() >= PATIENCE {
            state.bar = Some(new_bar(state.total));
        }
        if let Some(bar) = &state.bar {
            bar.set_position(state.done);
            if bar.message() != name {
                bar.set_message(name.to_owned());
            }
        }
    }

    /// Prints something without leaving pieces of the bar on the screen.
    pub fn above(&self, print: impl FnOnce()) {
        let bar = self.state.as_ref().and_then(|state| state.lock().bar.clone());
        match bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = self.state.as_ref().and_then(|state| state.lock().bar.take()) {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(total: u64) -> ProgressBar {
    let template = "{bar:30} {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta}  {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}
