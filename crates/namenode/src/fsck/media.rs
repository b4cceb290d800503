//! `-storagepolicies`: which media blocks are on, and whether their policies want that (HDFS: `StoragePolicySummary`).

use std::collections::BTreeMap;

use mobula_types::StorageType;

use super::java::put;
use crate::status_proto::{HOT, java_order, policy_of_media};

/// Blocks by the media of their replicas, in Java's order. How many combinations there are is bounded by
/// [`REPLICAS_TOLD_MAX`].
#[derive(Debug, Default)]
pub struct MediaSummary {
    blocks: BTreeMap<Vec<StorageType>, u64>,
}

/// More replicas of a block are told as so many.
const REPLICAS_TOLD_MAX: usize = 16;

impl MediaSummary {
    /// Counts a block.
    pub fn add(&mut self, mut media: Vec<StorageType>) {
        media.sort_by_key(|medium| java_order(*medium));
        media.truncate(REPLICAS_TOLD_MAX);
        *self.blocks.entry(media).or_default() += 1;
    }

    /// The two tables.
    pub fn tell(&self, out: &mut String) {
        let total: u64 = self.blocks.values().sum();
        let mut combinations: Vec<_> = self.blocks.iter().collect();
        combinations.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut others = String::new();
        out.push_str("\nBlocks satisfying the specified storage policy:");
        out.push_str("\nStorage Policy                  # of blocks       % of blocks\n");
        for (media, count) in combinations {
            let policy = policy_of_media(media);
            let described = described(media, policy);
            let share = share(*count, total);
            if policy == Some(HOT) {
                put!(out, "{described:<25} {count:>10}  {share:>20}\n");
                continue;
            }
            if others.is_empty() {
                others.push_str("\nBlocks NOT satisfying the specified storage policy:");
                others.push_str("\nStorage Policy                  ");
                others.push_str("Specified Storage Policy      # of blocks       % of blocks\n");
            }
            put!(others, "{described:<35} {HOT:<20} {count:>10}  {share:>20}\n");
        }
        if others.is_empty() {
            others.push_str("\nAll blocks satisfy specified storage policy.\n");
        }
        out.push_str(&others);
    }
}

/// `DISK:3(HOT)`.
fn described(media: &[StorageType], policy: Option<&str>) -> String {
    let mut counts: Vec<(StorageType, usize)> = Vec::new();
    for medium in media {
        match counts.last_mut() {
            Some((last, count)) if last == medium => *count += 1,
            _ => counts.push((*medium, 1)),
        }
    }
    let counts: Vec<String> =
        counts.iter().map(|(medium, count)| format!("{}:{count}", medium.name())).collect();
    let policy = policy.map_or_else(String::new, |name| format!("({name})"));
    format!("{}{policy}", counts.join(","))
}

#[allow(clippy::cast_precision_loss)] // a share for people
fn share(part: u64, whole: u64) -> String {
    format!("{:.4}%", part as f64 * 100.0 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables() {
        let mut summary = MediaSummary::default();
        summary.add(vec![StorageType::Disk; 3]);
        summary.add(vec![StorageType::Disk; 3]);
        summary.add(vec![StorageType::Disk, StorageType::Ssd]);
        summary.add(Vec::new());
        let mut text = String::new();
        summary.tell(&mut text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[3], "DISK:3(HOT)                        2              50.0000%");
        assert_eq!(lines[5], "Blocks NOT satisfying the specified storage policy:");
        let wanted =
            "SSD:1,DISK:1(ONE_SSD)               HOT                           1              25.0000%";
        assert!(lines.contains(&wanted), "{text}");
        assert_eq!(lines.len(), 9);
    }
}
