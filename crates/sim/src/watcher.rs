//! Listens to what the network and the machines log, and adds it to the trace: every message that is
//! sent or delivered, with its first bytes, and every line that a server logs.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::trace::Trace;

/// The network's own target.
const NETWORK: &str = "turmoil";
/// So much of a message's text goes into the trace. Bodies differ in their first bytes if at all: a
/// sequence number, a call id, a time.
const MESSAGE_MAX: usize = 160;
/// So much of a log line does.
const LINE_MAX: usize = 600;

thread_local! {
    static MACHINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The subscriber of one run's thread.
pub(crate) struct Watcher(Trace);

impl Watcher {
    pub(crate) fn new(trace: Trace) -> Watcher {
        MACHINES.with_borrow_mut(Vec::clear);
        CURRENT.set(0);
        Watcher(trace)
    }
}

impl Subscriber for Watcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            return metadata.target().starts_with(NETWORK) && metadata.name() == "node";
        }
        // Others' lines tell the real time.
        let ours = metadata.target().starts_with("mobula");
        (metadata.target() == NETWORK && self.0.hears_messages())
            || (ours && *metadata.level() <= Level::INFO)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut name = Text::new(LINE_MAX);
        span.record(&mut name);
        let at = MACHINES.with_borrow_mut(|machines| {
            machines.iter().position(|known| *known == name.text).unwrap_or_else(|| {
                machines.push(name.text);
                machines.len() - 1
            })
        });
        Id::from_u64(at as u64 + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let network = event.metadata().target() == NETWORK;
        if network && *event.metadata().level() != Level::TRACE {
            return;
        }
        let mut text = Text::new(if network { MESSAGE_MAX } else { LINE_MAX });
        event.record(&mut text);
        if !network {
            let machine = CURRENT.get().checked_sub(1);
            let name = MACHINES.with_borrow(|all| machine.and_then(|at| all.get(at).cloned()));
            let name = name.unwrap_or_default();
            self.0.add(&format!("{name}: {} {}", event.metadata().level(), text.text));
        } else if text.text.starts_with("Send") || text.text.starts_with("Delivered") {
            self.0.message(&text.text);
        }
    }

    fn enter(&self, span: &Id) {
        CURRENT.set(span.into_u64() as usize);
    }

    fn exit(&self, _: &Id) {
        CURRENT.set(0);
    }
}

/// The fields of an event as text, up to a length: formatting stops there.
struct Text {
    text: String,
    most: usize,
}

impl Text {
    fn new(most: usize) -> Text {
        Text { text: String::new(), most }
    }
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.text.push_str(part);
        if self.text.len() < self.most { Ok(()) } else { Err(fmt::Error) }
    }
}

impl Visit for Text {
    fn record_str(&mut self, _: &Field, value: &str) {
        let _ = write!(self, "{value} ");
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // An error only says that the text is long enough.
        let _ = match field.name() {
            "message" | "name" => write!(self, "{value:?} "),
            name => write!(self, "{name}={value:?} "),
        };
    }
}
