//! Which faults strike when: drawn from the seed before the run begins.

use std::fmt;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A machine of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// The NameNode.
    Namenode,
    /// A DataNode, from 0.
    Datanode(usize),
    /// The clients' machine; it is cut off, but never crashes.
    Client,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Namenode => f.write_str("nn"),
            Node::Datanode(at) => write!(f, "dn{at}"),
            Node::Client => f.write_str("client"),
        }
    }
}

/// Something that goes wrong, or right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9: what was written to the disk is there.
    Kill(Node),
    /// The power fails: what was not synced may be lost or torn.
    PowerLoss(Node),
    /// It starts again.
    Restart(Node),
    /// Nothing passes between two machines.
    Cut(Node, Node),
    /// Nothing passes from the first to the second.
    CutOneWay(Node, Node),
    /// All passes again.
    Mend(Node, Node),
    /// A machine's time of day jumps, by so many milliseconds.
    Jump(Node, i64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(node) => write!(f, "kill {node}"),
            Fault::PowerLoss(node) => write!(f, "power loss {node}"),
            Fault::Restart(node) => write!(f, "restart {node}"),
            Fault::Cut(a, b) => write!(f, "cut {a} {b}"),
            Fault::CutOneWay(from, to) => write!(f, "cut {from} -> {to}"),
            Fault::Mend(a, b) => write!(f, "mend {a} {b}"),
            Fault::Jump(node, ms) => write!(f, "jump {node} by {ms} ms"),
        }
    }
}

/// Faults by the simulated millisecond at which they strike.
#[derive(Clone, Debug)]
pub struct Plan {
    faults: Vec<(u64, Fault)>,
    next: usize,
}

/// How long faults go on, in simulated milliseconds. Then all is mended.
pub const FAULTS_MS: u64 = 30_000;
/// Faults begin after this long, so that there is something to lose.
const QUIET_MS: u64 = 1_000;
/// Faults of a run, at least and at most.
const FAULTS: std::ops::RangeInclusive<usize> = 3..=9;
/// How long a machine stays down, or a link cut.
const DOWN_MS: std::ops::Range<u64> = 100..14_000;
/// Farthest jump of a clock.
const JUMP_MS: i64 = 3_600_000;

impl Plan {
    /// The plan of a seed, for so many DataNodes.
    pub fn draw(seed: u64, datanodes: usize) -> Plan {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut faults = Vec::new();
        let mut free_at: Vec<(Node, u64)> = machines(datanodes).into_iter().map(|node| (node, 0)).collect();
        for _ in 0..rng.random_range(FAULTS) {
            let at = rng.random_range(QUIET_MS..FAULTS_MS - 1_000);
            let until = (at + rng.random_range(DOWN_MS)).min(FAULTS_MS);
            match rng.random_range(0..10) {
                0..=5 => crash(&mut rng, &mut free_at, at, until, &mut faults),
                6..=8 => cut(&mut rng, datanodes, at, until, &mut faults),
                _ => {
                    let node = pick(&mut rng, &machines(datanodes));
                    faults.push((at, Fault::Jump(node, rng.random_range(-JUMP_MS..JUMP_MS))));
                }
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        Plan { faults, next: 0 }
    }

    /// The next fault that is due.
    pub fn due(&mut self, now_ms: u64) -> Option<Fault> {
        let (at, fault) = *self.faults.get(self.next)?;
        (at <= now_ms).then(|| {
            self.next += 1;
            fault
        })
    }
}

/// The machines that can crash.
pub fn machines(datanodes: usize) -> Vec<Node> {
    std::iter::once(Node::Namenode).chain((0..datanodes).map(Node::Datanode)).collect()
}

fn pick(rng: &mut SmallRng, nodes: &[Node]) -> Node {
    nodes[rng.random_range(0..nodes.len())]
}

/// A machine goes down and comes back, unless it is down then already.
fn crash(
    rng: &mut SmallRng,
    free_at: &mut [(Node, u64)],
    at: u64,
    until: u64,
    faults: &mut Vec<(u64, Fault)>,
) {
    let chosen = rng.random_range(0..free_at.len());
    let power = rng.random_bool(0.5);
    let (node, free) = &mut free_at[chosen];
    // Plans are drawn out of order; a machine's times down may not overlap.
    if *free != 0 {
        return;
    }
    *free = until;
    faults.push((at, if power { Fault::PowerLoss(*node) } else { Fault::Kill(*node) }));
    faults.push((until, Fault::Restart(*node)));
}

fn cut(rng: &mut SmallRng, datanodes: usize, at: u64, until: u64, faults: &mut Vec<(u64, Fault)>) {
    let mut all = machines(datanodes);
    all.push(Node::Client);
    let a = pick(rng, &all);
    let b = pick(rng, &all);
    if a == b {
        return;
    }
    faults.push((at, if rng.random_bool(0.5) { Fault::Cut(a, b) } else { Fault::CutOneWay(a, b) }));
    faults.push((until, Fault::Mend(a, b)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_plan_and_mends_all() {
        for seed in 0..200 {
            let (a, b) = (Plan::draw(seed, 3), Plan::draw(seed, 3));
            assert_eq!(a.faults, b.faults);
            let count = |kind: fn(&Fault) -> bool| a.faults.iter().filter(|(_, fault)| kind(fault)).count();
            let down = count(|fault| matches!(fault, Fault::Kill(_) | Fault::PowerLoss(_)));
            assert_eq!(down, count(|fault| matches!(fault, Fault::Restart(_))), "seed {seed}");
            assert!(a.faults.iter().all(|(at, _)| *at <= FAULTS_MS));
        }
    }
}
