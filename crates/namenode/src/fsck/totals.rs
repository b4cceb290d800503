//! What was counted, and the block of figures that ends a check. Lines and columns are HDFS's.

use super::java::{float, percent, put};

/// Figures of replicated files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub directories: u64,
    pub files: u64,
    pub bytes: u64,
    pub blocks: u64,
    pub open_files: u64,
    pub open_bytes: u64,
    pub open_blocks: u64,
    pub corrupt_files: u64,
    pub missing_blocks: u64,
    pub missing_bytes: u64,
    pub corrupt_blocks: u64,
    pub corrupt_bytes: u64,
    /// Blocks with fewer replicas than `dfs.namenode.replication.min`, and the others.
    pub blocks_below_min: u64,
    pub blocks_at_min: u64,
    pub blocks_over: u64,
    pub blocks_under: u64,
    pub replicas: u64,
    pub replicas_expected: u64,
    pub replicas_missing: u64,
}

impl Totals {
    /// No block is missing.
    pub fn is_healthy(&self) -> bool {
        self.missing_blocks == 0 && self.corrupt_blocks == 0
    }

    /// How many names were looked at, as progress counts them.
    pub fn seen(&self) -> u64 {
        self.directories + self.files
    }

    /// `NamenodeFsck.ReplicationResult`.
    pub fn tell(&self, out: &mut String, default_replication: u16, replication_min: u16) {
        put!(out, " Total size:\t{} B", self.bytes);
        if self.open_bytes != 0 {
            put!(out, " (Total open files size: {} B)", self.open_bytes);
        }
        put!(out, "\n Total files:\t{}", self.files);
        if self.open_files != 0 {
            put!(out, " (Files currently being written: {})", self.open_files);
        }
        put!(out, "\n Total blocks (validated):\t{}", self.blocks);
        if let Some(average) = self.bytes.checked_div(self.blocks) {
            put!(out, " (avg. block size {average} B)");
        }
        if self.open_blocks != 0 {
            put!(out, " (Total open file blocks (not validated): {})", self.open_blocks);
        }
        if self.corrupt_files > 0 || self.blocks_below_min > 0 {
            self.tell_harm(out, replication_min);
        }
        self.tell_blocks(out, "Minimally replicated blocks:\t", self.blocks_at_min);
        self.tell_blocks(out, "Over-replicated blocks:\t", self.blocks_over);
        self.tell_blocks(out, "Under-replicated blocks:\t", self.blocks_under);
        self.tell_blocks(out, "Mis-replicated blocks:\t\t", 0);
        put!(out, "\n Default replication factor:\t{default_replication}");
        put!(out, "\n Average block replication:\t{}", float(self.average_replication()));
        put!(out, "\n Missing blocks:\t\t{}", self.missing_blocks);
        put!(out, "\n Corrupt blocks:\t\t{}", self.corrupt_blocks);
        put!(out, "\n Missing replicas:\t\t{}", self.replicas_missing);
        if self.replicas > 0 {
            put!(out, " ({} %)", percent(self.replicas_missing, self.replicas_expected));
        }
        out.push_str("\n Blocks queued for replication:\t0\n");
    }

    fn tell_harm(&self, out: &mut String, replication_min: u16) {
        out.push_str("\n  ********************************");
        if self.blocks_below_min > 0 {
            put!(out, "\n  UNDER MIN REPL'D BLOCKS:\t{}", self.blocks_below_min);
            if self.blocks > 0 {
                put!(out, " ({} %)", percent(self.blocks_below_min, self.blocks));
            }
            put!(out, "\n  MINIMAL BLOCK REPLICATION:\t{replication_min}");
        }
        if self.corrupt_files > 0 {
            put!(out, "\n  CORRUPT FILES:\t{}", self.corrupt_files);
            if self.missing_bytes > 0 {
                put!(out, "\n  MISSING BLOCKS:\t{}", self.missing_blocks);
                put!(out, "\n  MISSING SIZE:\t\t{} B", self.missing_bytes);
            }
            if self.corrupt_blocks > 0 {
                put!(out, "\n  CORRUPT BLOCKS: \t{}", self.corrupt_blocks);
                put!(out, "\n  CORRUPT SIZE:\t\t{} B", self.corrupt_bytes);
            }
        }
        out.push_str("\n  ********************************");
    }

    fn tell_blocks(&self, out: &mut String, what: &str, count: u64) {
        put!(out, "\n {what}{count}");
        if self.blocks > 0 {
            put!(out, " ({} %)", percent(count, self.blocks));
        }
    }

    #[allow(clippy::cast_precision_loss)] // as Java does
    fn average_replication(&self) -> f32 {
        if self.blocks == 0 { 0.0 } else { self.replicas as f32 / self.blocks as f32 }
    }
}

/// `NamenodeFsck.ErasureCodingResult`, where no file is erasure-coded.
pub const NO_ERASURE_CODING: &str = " Total size:\t0 B
 Total files:\t0
 Total block groups (validated):\t0
 Minimally erasure-coded block groups:\t0
 Over-erasure-coded block groups:\t0
 Under-erasure-coded block groups:\t0
 Unsatisfactory placement block groups:\t0
 Average block group size:\t0.0
 Missing block groups:\t\t0
 Corrupt block groups:\t\t0
 Missing internal blocks:\t0
 Blocks queued for replication:\t0
";
