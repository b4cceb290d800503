//! One file: its blocks are judged one by one, and told of as they are asked for.

use mobula_fleet::Replica;
use mobula_namespace::{BlockState, ErrorKind, FileBlock, FileBlocks, FileKind, FileStatus};
use mobula_types::HdfsPath;

use super::Told;
use super::java::put;
use super::request::Options;
use super::tree::TreeCheck;
use crate::asker::Asker;
use crate::exceptions::Refusal;
use crate::service::Service;

/// Blocks whose replicas are looked up at once, under the fleet's lock.
const BLOCKS_A_LOOK: usize = 256;

/// What `-delete` is answered (docs/decisions/0011-fsck.md).
const NO_DELETION: &str =
    "fsck deletes nothing: a DataNode that has it may come back; remove it with hdfs dfs -rm if none will";

/// What every block's line needs.
struct Subject<'a> {
    path: &'a HdfsPath,
    replication: u16,
    open: bool,
    service: &'a Service,
}

/// What a file's blocks come to.
#[derive(Default)]
struct Harm {
    missing: u64,
    missing_bytes: u64,
    corrupt: u64,
    corrupt_bytes: u64,
    under: u64,
}

impl TreeCheck {
    /// Looks at a file.
    pub(super) fn check_file(
        &mut self,
        service: &Service,
        asker: &Asker,
        told: &mut Told,
        path: HdfsPath,
        status: &FileStatus,
    ) -> Result<(), Refusal> {
        let FileKind::File { length, replication, .. } = status.kind else { return Ok(()) };
        let file = match service.blocks_to_check(asker, &path, length) {
            // Deleted since it was listed.
            Err(Refusal::Namespace(gone)) if gone.kind() == ErrorKind::FileNotFound => return Ok(()),
            file => file?,
        };
        let open = matches!(file.status.kind, FileKind::File { open: true, .. });
        if open && !told.options().open_for_write {
            self.totals.open_files += 1;
            self.totals.open_bytes += length;
            self.totals.open_blocks += file.blocks.len() as u64;
            return Ok(());
        }
        let subject = Subject { path: &path, replication, open, service };
        self.begin_file(told, &subject, length, file.blocks.len());
        let harm = self.check_blocks(told, &subject, &file);
        if harm.missing + harm.corrupt > 0 && !open && told.options().delete {
            put!(told.out, "\n{path}: NOT deleted, {NO_DELETION}.\n");
            self.failed_to_delete = true;
        }
        Ok(())
    }

    /// `NamenodeFsck.collectFileSummary`.
    fn begin_file(&mut self, told: &mut Told, file: &Subject<'_>, length: u64, blocks: usize) {
        self.totals.files += 1;
        self.totals.bytes += length;
        self.totals.blocks += blocks as u64;
        let (path, replication) = (file.path, file.replication);
        if file.open || told.options().files {
            let open = if file.open { ", OPENFORWRITE" } else { "" };
            put!(
                told.out,
                "{path} {length} bytes, replicated: replication={replication}, {blocks} block(s){open}: "
            );
        } else if self.totals.files.is_multiple_of(100) {
            told.out.push('.');
        }
    }

    /// `NamenodeFsck.collectBlocksSummary`.
    fn check_blocks(&mut self, told: &mut Told, subject: &Subject<'_>, file: &FileBlocks) -> Harm {
        let mut harm = Harm::default();
        let mut report = String::new();
        // While a file is written its last block counts as complete once that has its length, as for readers.
        let open_last = file.last.as_ref().filter(|last| last.state == BlockState::UnderConstruction);
        let is_open = |block: &FileBlock| open_last.is_some_and(|last| last.block.id == block.block.id);
        let mut number = 0;
        for blocks in file.blocks.chunks(BLOCKS_A_LOOK) {
            let replicas = subject
                .service
                .roster
                .ask(|fleet, _| blocks.iter().map(|block| fleet.replicas(block.block)).collect::<Vec<_>>());
            for (block, replicas) in blocks.iter().zip(replicas).filter(|(block, _)| !is_open(block)) {
                self.check_block(told, subject, block, &replicas, &mut harm);
                if told.options().blocks && told.options().files {
                    report_block(&mut report, told.options(), subject, number, block, &replicas);
                }
                number += 1;
            }
        }
        if let Some(last) = open_last {
            report_open_block(&mut report, told.options(), subject, number, last);
        }
        self.end_file(told, subject, &harm, &report);
        harm
    }

    fn check_block(
        &mut self,
        told: &mut Told,
        subject: &Subject<'_>,
        block: &FileBlock,
        replicas: &[Replica],
        harm: &mut Harm,
    ) {
        let live = count_live(replicas);
        let (target, least) =
            (u64::from(subject.replication), u64::from(subject.service.config.rules.replication_min));
        let length = block.block.length;
        let totals = &mut self.totals;
        totals.replicas += live;
        totals.replicas_expected += target;
        totals.blocks_below_min += u64::from(live < least);
        totals.blocks_at_min += u64::from(live >= least);
        totals.blocks_over += u64::from(live > target);
        if is_corrupt(replicas) {
            totals.corrupt_blocks += 1;
            totals.corrupt_bytes += length;
            harm.corrupt += 1;
            harm.corrupt_bytes += length;
            let (path, pool) = (subject.path, &subject.service.format.pool);
            put!(told.out, "\n{path}: CORRUPT blockpool {pool} block {}\n", block.block.id);
        } else if live == 0 {
            totals.missing_blocks += 1;
            totals.missing_bytes += length;
            harm.missing += 1;
            harm.missing_bytes += length;
        }
        if 0 < live && live < target {
            totals.replicas_missing += target - live;
            totals.blocks_under += 1;
            harm.under += 1;
            tell_under(told, subject, block, live);
        }
        if told.options().storage_policies {
            // Where readers would be sent.
            let corrupt = is_corrupt(replicas);
            let shown = replicas.iter().filter(|replica| corrupt || replica.bad.is_none());
            self.media.add(shown.map(|replica| replica.kind).collect());
        }
    }

    fn end_file(&mut self, told: &mut Told, subject: &Subject<'_>, harm: &Harm, report: &str) {
        let path = subject.path;
        let hurt = harm.missing + harm.corrupt > 0;
        self.totals.corrupt_files += u64::from(hurt);
        let kinds =
            [("MISSING", harm.missing, harm.missing_bytes), ("CORRUPT", harm.corrupt, harm.corrupt_bytes)];
        for (kind, count, bytes) in kinds.into_iter().filter(|kind| kind.1 > 0) {
            match told.options().files {
                true => put!(told.out, " {kind} {count} blocks of total size {bytes} B\n"),
                false => put!(told.out, "\n{path}: {kind} {count} blocks of total size {bytes} B."),
            }
        }
        if told.options().files {
            if !hurt && harm.under == 0 {
                told.out.push_str(" OK\n");
            }
            if told.options().blocks {
                put!(told.out, "{report}\n");
            }
        }
    }
}

/// Replicas that count.
pub fn count_live(replicas: &[Replica]) -> u64 {
    replicas.iter().filter(|replica| replica.counts()).count() as u64
}

/// There are replicas, and all are bad.
fn is_corrupt(replicas: &[Replica]) -> bool {
    !replicas.is_empty() && replicas.iter().all(|replica| replica.bad.is_some())
}

fn tell_under(told: &mut Told, subject: &Subject<'_>, block: &FileBlock, live: u64) {
    if !told.options().files {
        put!(told.out, "\n{}: ", subject.path);
    }
    let (pool, target) = (&subject.service.format.pool, subject.replication);
    // HDFS joins them like that.
    let end = match told.options().maintenance {
        true => "0, entering maintenance replica(s) and 0 in maintenance replica(s).",
        false => ".",
    };
    put!(
        told.out,
        " Under replicated {pool}:{}. Target Replicas is {target} but found {live} live replica(s), \
         0 decommissioned replica(s), 0 decommissioning replica(s){end}\n",
        block.block
    );
}

fn report_block(
    report: &mut String,
    options: &Options,
    subject: &Subject<'_>,
    number: usize,
    block: &FileBlock,
    replicas: &[Replica],
) {
    let (pool, length) = (&subject.service.format.pool, block.block.length);
    put!(report, "{number}. {pool}:{} len={length}", block.block);
    let live = count_live(replicas);
    if live == 0 && !is_corrupt(replicas) {
        report.push_str(" MISSING!");
    } else {
        put!(report, " Live_repl={live}");
        report_places(report, options, replicas);
    }
    report.push('\n');
}

fn report_open_block(
    report: &mut String,
    options: &Options,
    subject: &Subject<'_>,
    number: usize,
    block: &FileBlock,
) {
    let (pool, length) = (&subject.service.format.pool, block.block.length);
    let expected = subject.service.roster.ask(|fleet, _| fleet.expected_replicas(&block.targets));
    put!(report, "\nUnder Construction Block:\n{number}. {pool}:{} len={length}", block.block);
    put!(report, " Expected_repl={}", expected.len());
    report_places(report, options, &expected);
}

/// `NamenodeFsck.getReplicaInfo`.
fn report_places(report: &mut String, options: &Options, replicas: &[Replica]) {
    if !options.tells_places() {
        return;
    }
    report.push_str("  [");
    for (nth, replica) in replicas.iter().enumerate() {
        let separator = if nth == 0 { "" } else { ", " };
        let address = replica.node.id.xfer_address();
        let (storage, kind) = (&replica.storage, replica.kind.name());
        match options.racks {
            true => put!(report, "{separator}{}/{address}", replica.node.rack),
            false => put!(report, "{separator}DatanodeInfoWithStorage[{address},{storage},{kind}]"),
        }
        if options.upgrade_domains {
            report.push_str("(ud=undefined)");
        }
        if options.replica_details {
            put!(report, "({})", details(replica));
        }
    }
    report.push(']');
}

fn details(replica: &Replica) -> &'static str {
    match replica {
        Replica { bad: Some(_), .. } => "CORRUPT",
        Replica { surplus: true, .. } => "EXCESS",
        Replica { suspect: true, .. } => "STALE_NODE",
        Replica { unconfirmed: true, .. } => "STALE_BLOCK_CONTENT",
        _ => "LIVE",
    }
}
