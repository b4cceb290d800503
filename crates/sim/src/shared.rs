//! What the machines of a run share with the test around them.

use std::convert::Infallible;
use std::sync::Arc;

use mobula_namenode::Service;
use mobula_namespace::{Entry, LogPosition, View};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use crate::mishap::Mishap;
use crate::oracle::Oracle;
use crate::plan::Node;
use crate::shadow::Shadow;
use crate::trace::Trace;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Clients work, the plan strikes.
    Faults,
    /// All is mended; everything must become whole.
    Settle,
    /// The power fails everywhere; all starts again.
    Blackout,
    /// All is up again.
    After,
}

/// See the module; clones are the same.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Apart from the rest: a NameNode holds it while it applies.
    shadow: Mutex<Shadow>,
    trace: Trace,
}

struct State {
    phase: Phase,
    oracle: Oracle,
    failure: Option<String>,
    service: Option<Arc<Service>>,
    ended: Vec<(Node, String)>,
}

impl Shared {
    /// The start of a run.
    pub fn new(trace: Trace) -> Shared {
        let state = State {
            phase: Phase::Faults,
            oracle: Oracle::default(),
            failure: None,
            service: None,
            ended: Vec::new(),
        };
        Shared(Arc::new(Inner { state: Mutex::new(state), shadow: Mutex::new(Shadow::new()), trace }))
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        self.0.state.lock().phase
    }

    /// The next phase begins.
    pub fn set_phase(&self, phase: Phase) {
        self.trace(&format!("-- {phase:?}"));
        self.0.state.lock().phase = phase;
    }

    /// What was acknowledged, and must be found.
    pub fn oracle(&self) -> MappedMutexGuard<'_, Oracle> {
        MutexGuard::map(self.0.state.lock(), |state| &mut state.oracle)
    }

    /// Something befalls a machine; only DataNodes lose replicas.
    pub fn befalls(&self, node: Node, what: Mishap) {
        if let Node::Datanode(at) = node {
            let mut oracle = self.oracle();
            let now_ms = oracle.now_ms;
            oracle.mishaps.begin(at, what, now_ms);
        }
    }

    /// It is over.
    pub fn is_over(&self, node: Node, what: Mishap) {
        if let Node::Datanode(at) = node {
            let mut oracle = self.oracle();
            let now_ms = oracle.now_ms;
            oracle.mishaps.end(at, what, now_ms);
        }
    }

    /// A line of the trace, at the present simulated time.
    pub fn trace(&self, text: &str) {
        self.0.trace.add(text);
    }

    /// The simulated time is so many milliseconds.
    pub fn at(&self, now_ms: u64) {
        self.0.trace.at(now_ms);
        self.oracle().now_ms = now_ms;
    }

    /// The run has failed; the first reason counts.
    pub fn fail(&self, why: String) {
        self.trace(&format!("FAILED {why}"));
        self.0.state.lock().failure.get_or_insert(why);
    }

    /// Why the run has failed, if it has.
    pub fn failure(&self) -> Option<String> {
        self.0.state.lock().failure.clone()
    }

    /// The NameNode that serves now.
    pub fn service(&self) -> Option<Arc<Service>> {
        self.0.state.lock().service.clone()
    }

    /// A NameNode serves from now on, or none.
    pub fn serves(&self, service: Option<Arc<Service>>) {
        // Dropped after the lock is free: it ends a NameNode.
        let before = std::mem::replace(&mut self.0.state.lock().service, service);
        drop(before);
    }

    /// A process has come to its end by itself; it is looked after from outside.
    pub async fn ended(&self, node: Node, why: String) -> turmoil::Result {
        self.0.state.lock().ended.push((node, why));
        let never: Infallible = std::future::pending().await;
        match never {}
    }

    /// Processes that ended since the last time.
    pub fn take_ended(&self) -> Vec<(Node, String)> {
        std::mem::take(&mut self.0.state.lock().ended)
    }

    /// The NameNode went down: what it applies next is a replay.
    pub fn namenode_down(&self) {
        self.0.shadow.lock().restarted();
    }

    /// The NameNode applied entries.
    pub fn applied(&self, entries: &[(LogPosition, Entry)], view: &View) {
        let compared = self.0.shadow.lock().applied(entries, view);
        match compared {
            Ok(None) => {}
            Ok(Some((at, hash))) => self.trace(&format!("namespace at {at:?}: {hash:016x}")),
            Err(why) => self.fail(why),
        }
    }

    /// Holds the NameNode's namespace against the second machine's.
    pub fn compare(&self) {
        let Some(service) = self.service() else { return };
        let compared = self.0.shadow.lock().compare(&service.view());
        match compared {
            Ok((at, hash)) => self.trace(&format!("namespace at {at:?}: {hash:016x}")),
            Err(why) => self.fail(why),
        }
    }
}
