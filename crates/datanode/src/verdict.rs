//! What becomes of a block under recovery, from what its nodes have of it (HDFS: `BlockRecoveryWorker.recover`,
//! `syncBlock`). `docs/decisions/0005-block-recovery.md` gives the reasons where the rules differ from HDFS's.
//!
//! Pure. Invariant: no verdict cuts off or deletes what a writer was told is flushed, as long as a node may hold it.

use mobula_types::{Block, ReplicaState};

use crate::recovery::Found;

/// What a node that is expected to have the block said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has this.
    Has(Found),
    /// It has nothing that a client wrote.
    Nothing,
    /// A later recovery has it, or this very one by somebody else.
    Busy,
    /// It has an older version: it left the pipeline before the others went on under the block's stamp.
    Stale,
    /// It has something that takes no part: a newer version, or a bad one.
    Refuses,
    /// It cannot be reached.
    Silent,
}

impl Answer {
    /// It says what the node has, or that it has nothing of this version and never will.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self, Answer::Has(_) | Answer::Nothing | Answer::Stale)
    }
}

/// Whether nodes that do not answer are still waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Waits,
    /// It was tried for so long that they count as lost.
    Over,
}

/// What becomes of the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing now: the NameNode begins again.
    Wait(&'static str),
    /// Somebody else is at it.
    Leave,
    /// Nothing of it was ever acknowledged: it is taken off its file.
    Delete,
    /// It has this length, and these nodes, by their places, are to have it.
    Settle { length: u64, nodes: Vec<usize> },
}

/// Decides. `truncate` is the length that an administrator or client wants, if that is what the recovery is for.
pub(crate) fn decide(
    block: &Block,
    truncate: Option<u64>,
    answers: &[Answer],
    patience: Patience,
) -> Verdict {
    if answers.is_empty() {
        return Verdict::Wait("no node was named");
    }
    if answers.contains(&Answer::Busy) {
        return Verdict::Leave;
    }
    let of = |state: ReplicaState| -> Vec<(usize, u64)> {
        let has = |(at, answer): (usize, &Answer)| match answer {
            Answer::Has(found) if found.state == state && found.block.stamp >= block.stamp => {
                Some((at, found.block.length))
            }
            _ => None,
        };
        answers.iter().enumerate().filter_map(has).collect()
    };
    let (finals, written, waiting) =
        (of(ReplicaState::Finalized), of(ReplicaState::Rbw), of(ReplicaState::Rwr));
    // A pipeline gets new stamps when it loses a node. So one that is still being written under the block's stamp
    // has all that was ever acknowledged, and so has a final one: whoever does not answer has not more.
    let proven = !finals.is_empty() || !written.is_empty();
    let long = |list: &[(usize, u64)], least: u64| -> Vec<usize> {
        list.iter().filter(|(_, length)| *length >= least).map(|(at, _)| *at).collect()
    };
    let lengths = |list: &[(usize, u64)]| -> Vec<u64> {
        list.iter().map(|(_, length)| *length).filter(|length| *length > 0).collect()
    };
    if let Some(length) = truncate {
        let mut nodes = long(&finals, length);
        if nodes.is_empty() {
            nodes = long(&written, length);
        }
        if nodes.is_empty() {
            nodes = long(&waiting, length);
        }
        return if nodes.is_empty() || length == 0 {
            Verdict::Wait("no node has as many bytes as the block is to keep")
        } else {
            Verdict::Settle { length, nodes }
        };
    }
    let knows = |answer: &Answer| matches!(answer, Answer::Has(_) | Answer::Nothing);
    let settled = answers.iter().all(Answer::is_known);
    if let Some(length) = lengths(&finals).into_iter().max() {
        let same = |at: usize| matches!(answers[at], Answer::Has(found) if found.block.stamp == block.stamp);
        // A recovery before this one closed some: they have its id for a stamp, and the length that it decided.
        let decided = finals.iter().any(|(at, _)| !same(*at));
        if decided && lengths(&finals).iter().any(|other| *other != length) {
            return Verdict::Wait("final replicas differ in length");
        }
        // Longer than a final one under its very stamp: a client appended without a new stamp, as HDFS allows and
        // hdfs-native does, and the final ones are of nodes that were away, from before. (HDFS cuts to them, or gives up
        // if they differ: "Inconsistent size of finalized replicas".)
        let beyond = |list: &[(usize, u64)]| -> Vec<(usize, u64)> {
            list.iter().copied().filter(|(at, more)| !decided && *more > length && same(*at)).collect()
        };
        let (open, restarted) = (beyond(&written), beyond(&waiting));
        if open.is_empty()
            && let Some(length) = lengths(&restarted).into_iter().max()
        {
            return if settled || patience == Patience::Over {
                Verdict::Settle { length, nodes: long(&restarted, length) }
            } else {
                Verdict::Wait("a node that may have more does not answer")
            };
        }
        let length = lengths(&open).into_iter().min().unwrap_or(length);
        // Those that are still being written go further, if anything: they had its last byte before it ended.
        return Verdict::Settle { length, nodes: [long(&finals, length), long(&written, length)].concat() };
    }
    if let Some(length) = lengths(&written).into_iter().min() {
        return Verdict::Settle { length, nodes: long(&written, length) };
    }
    if let Some(length) = lengths(&waiting).into_iter().max() {
        // Their nodes were restarted. If the power failed, any of them may have lost what was flushed, but not synced.
        if !proven && !settled && patience == Patience::Waits {
            return Verdict::Wait("a node that may have more does not answer");
        }
        return Verdict::Settle { length, nodes: long(&waiting, length) };
    }
    if proven || answers.iter().all(knows) {
        return Verdict::Delete;
    }
    Verdict::Wait("no node that answers has any byte, and not all do")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mobula_types::{BlockId, GenStamp};

    fn block(stamp: u64, length: u64) -> Block {
        Block { id: BlockId(1), stamp: GenStamp(stamp), length }
    }

    /// `final 100`, `rbw 90`, `rwr 0`, `nothing`, `busy`, `stale`, `refuses`, `silent`; a stamp other than 10 behind `@`.
    fn answer(text: &str) -> Answer {
        let (text, stamp) = text.split_once('@').unwrap_or((text, "10"));
        let (word, length) = text.split_once(' ').unwrap_or((text, "0"));
        let state = match word {
            "final" => ReplicaState::Finalized,
            "rbw" => ReplicaState::Rbw,
            "rwr" => ReplicaState::Rwr,
            "nothing" => return Answer::Nothing,
            "busy" => return Answer::Busy,
            "refuses" => return Answer::Refuses,
            "stale" => return Answer::Stale,
            "silent" => return Answer::Silent,
            _ => panic!("{word}"),
        };
        Answer::Has(Found { block: block(stamp.parse().unwrap(), length.parse().unwrap()), state })
    }

    #[test]
    fn verdicts() {
        let cases = [
            // All that are being written: what all have.
            ("rbw 100, rbw 90, rbw 95", "90: 0 1 2"),
            ("rbw 100, silent, silent", "100: 0"),
            ("rbw 100, rbw 90@9, rbw 0", "100: 0"),
            ("rbw 100, nothing, refuses", "100: 0"),
            // A final one: its length, and those that go on.
            ("final 100, rbw 100, rbw 90", "100: 0 1"),
            ("final 100, rbw 120@11, silent", "100: 0 1"),
            ("rwr 100, final 100, silent", "100: 1"),
            // Appended to under the same stamp, on some.
            ("final 100, final 90, silent", "100: 0"),
            ("final 90, final 100, final 90", "100: 1"),
            ("final 100, rbw 120, silent", "120: 1"),
            ("final 100, rbw 130, rbw 120", "120: 1 2"),
            ("final 100, rwr 120, rwr 110", "120: 1"),
            ("final 100, rwr 120, silent", "wait"),
            // Closed by a recovery that was not finished.
            ("final 100@11, rbw 120, rbw 130", "100: 0 1 2"),
            ("final 100@11, final 120, silent", "wait"),
            // Restarted ones do not count beside one that went on.
            ("rwr 80, rbw 90, rwr 100", "90: 1"),
            // All were restarted: the longest, once all have answered.
            ("rwr 80, rwr 100, rwr 100", "100: 1 2"),
            ("rwr 80, rwr 100, silent", "wait"),
            ("rwr 80, rwr 100, refuses", "wait"),
            ("rwr 0, rwr 100, stale", "100: 1"),
            ("rwr 100, stale, silent", "wait"),
            ("rwr 80, nothing, rwr 0", "80: 0"),
            ("rwr 80, rbw 0, silent", "80: 0"),
            // Nothing anywhere: only if that is certain.
            ("nothing, nothing, nothing", "delete"),
            ("nothing, rwr 0, nothing", "delete"),
            ("nothing, rwr 0, silent", "wait"),
            ("nothing, nothing, silent", "wait"),
            ("nothing, nothing, refuses", "wait"),
            ("nothing, rwr 0, stale", "wait"),
            ("nothing, rbw 0@9, silent", "wait"),
            ("nothing, rbw 0, silent", "delete"),
            ("silent, silent, silent", "wait"),
            // Another recovery.
            ("rbw 100, busy, rbw 100", "leave"),
        ];
        for (answers, expected) in cases {
            let answers: Vec<Answer> = answers.split(", ").map(answer).collect();
            assert_eq!(show(decide(&block(10, 0), None, &answers, Patience::Waits)), expected, "{answers:?}");
        }
        assert_eq!(show(decide(&block(10, 0), None, &[], Patience::Over)), "wait");
        let over = |text: &str| {
            let answers: Vec<Answer> = text.split(", ").map(answer).collect();
            show(decide(&block(10, 0), None, &answers, Patience::Over))
        };
        assert_eq!(over("rwr 80, rwr 100, silent"), "100: 1");
        // What was never seen is never deleted, however long it takes.
        assert_eq!(over("nothing, nothing, silent"), "wait");
    }

    #[test]
    fn truncations() {
        let cases = [
            ("final 100, final 100, silent", "50: 0 1"),
            ("final 40, rbw 60, silent", "50: 1"),
            ("rwr 60, nothing, silent", "50: 0"),
            ("rwr 40, nothing, nothing", "wait"),
            ("final 100, busy, final 100", "leave"),
        ];
        for (answers, expected) in cases {
            let answers: Vec<Answer> = answers.split(", ").map(answer).collect();
            let verdict = decide(&block(10, 100), Some(50), &answers, Patience::Waits);
            assert_eq!(show(verdict), expected, "{answers:?}");
        }
    }

    fn show(verdict: Verdict) -> String {
        match verdict {
            Verdict::Wait(_) => "wait".into(),
            Verdict::Leave => "leave".into(),
            Verdict::Delete => "delete".into(),
            Verdict::Settle { length, mut nodes } => {
                nodes.sort_unstable();
                let nodes: Vec<String> = nodes.iter().map(usize::to_string).collect();
                format!("{length}: {}", nodes.join(" "))
            }
        }
    }
}
