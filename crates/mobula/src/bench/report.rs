//! What was measured, as a table for people and as JSON for scripts.

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::meter::{Latencies, Used};

/// One line of the result. What does not apply, or was not asked for, is absent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// What was done.
    pub name: String,
    /// How often.
    pub operations: usize,
    /// Seconds from the first to the last.
    pub seconds: f64,
    /// Operations per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// User data, in 10^6 bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mb_per_second: Option<f64>,
    /// Median latency of an operation, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    /// 99 of 100 took at most so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// 999 of 1,000 took at most so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999_us: Option<f64>,
    /// The longest time for which a writer stood still, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_ms: Option<f64>,
    /// CPU time of the NameNode per operation, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_us: Option<f64>,
    /// CPU time of all DataNodes per operation, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datanodes_us: Option<f64>,
    /// CPU time of all DataNodes per 10^9 bytes of user data, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datanodes_s_per_gb: Option<f64>,
    /// CPU time of this program per operation, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_us: Option<f64>,
    /// This program's share of the CPU time of all that was accounted, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_percent: Option<f64>,
    /// Resident memory of the NameNode afterwards, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_resident: Option<u64>,
}

impl Row {
    /// Many operations of one kind.
    pub(super) fn of_operations(name: &str, latencies: &Latencies, used: Used) -> Row {
        let count = latencies.count();
        let each = |seconds: f64| seconds / count.max(1) as f64 * 1e6;
        let servers = used.server_s.unwrap_or(0.0) + used.datanodes_s.unwrap_or(0.0);
        let accounted = used.server_s.is_some() || used.datanodes_s.is_some();
        Row {
            name: name.into(),
            operations: count,
            seconds: used.wall_s,
            per_second: Some(count as f64 / used.wall_s),
            p50_us: Some(latencies.quantile_us(0.5)),
            p99_us: Some(latencies.quantile_us(0.99)),
            p999_us: Some(latencies.quantile_us(0.999)),
            server_us: used.server_s.map(each),
            datanodes_us: used.datanodes_s.map(each),
            own_us: Some(each(used.own_s)),
            own_percent: accounted.then(|| used.own_s / (used.own_s + servers).max(1e-9) * 100.0),
            ..Row::default()
        }
    }

    /// The same without what has no meaning for a single long operation: latencies and what each one cost.
    pub(super) fn bare(self) -> Row {
        Row {
            per_second: None,
            p50_us: None,
            p99_us: None,
            p999_us: None,
            server_us: None,
            datanodes_us: None,
            own_us: None,
            own_percent: None,
            ..self
        }
    }

    /// The same with so much user data in all.
    pub(super) fn with_bytes(mut self, bytes: u64, used_datanodes_s: Option<f64>) -> Row {
        self.mb_per_second = Some(bytes as f64 / 1e6 / self.seconds);
        self.datanodes_s_per_gb = used_datanodes_s.map(|seconds| seconds / (bytes as f64 / 1e9));
        self
    }
}

/// For people.
pub(super) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let columns: Vec<(&str, Vec<String>)> = columns(rows);
    // A column that nobody filled says nothing.
    let columns: Vec<_> =
        columns.into_iter().filter(|(_, cells)| cells.iter().any(|cell| !cell.is_empty())).collect();
    table.set_header(columns.iter().map(|(head, _)| *head));
    for line in 0..rows.len() {
        table.add_row(columns.iter().map(|(_, cells)| cells[line].as_str()));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn columns(rows: &[Row]) -> Vec<(&'static str, Vec<String>)> {
    let figure = |pick: fn(&Row) -> Option<f64>, digits: usize| {
        rows.iter().map(|row| pick(row).map_or(String::new(), |value| format!("{value:.digits$}"))).collect()
    };
    vec![
        ("", rows.iter().map(|row| row.name.clone()).collect()),
        ("ops", rows.iter().map(|row| row.operations.to_string()).collect()),
        ("s", figure(|row| Some(row.seconds), 2)),
        ("ops/s", figure(|row| row.per_second, 0)),
        ("MB/s", figure(|row| row.mb_per_second, 0)),
        ("p50 ms", figure(|row| row.p50_us.map(|us| us / 1e3), 3)),
        ("p99 ms", figure(|row| row.p99_us.map(|us| us / 1e3), 3)),
        ("p99.9 ms", figure(|row| row.p999_us.map(|us| us / 1e3), 3)),
        ("longest stall ms", figure(|row| row.stall_ms, 0)),
        ("NameNode us/op", figure(|row| row.server_us, 1)),
        ("DataNodes us/op", figure(|row| row.datanodes_us, 0)),
        ("DataNodes s/GB", figure(|row| row.datanodes_s_per_gb, 2)),
        ("own us/op", figure(|row| row.own_us, 1)),
        ("own CPU %", figure(|row| row.own_percent, 0)),
        ("NameNode RSS MiB", figure(|row| row.server_resident.map(|bytes| bytes as f64 / 1048576.0), 1)),
    ]
}

/// For scripts: a list of objects, a figure that was not measured is left out.
///
/// # Errors
/// None in practice: the rows are plain numbers.
pub(super) fn json(rows: &[Row]) -> Result<String> {
    Ok(serde_json::to_string_pretty(rows)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_without_figures_are_left_out() {
        let row = Row { name: "create".into(), operations: 3, seconds: 1.5, ..Row::default() };
        let text = table(std::slice::from_ref(&row));
        assert!(text.contains("create") && !text.contains("MB/s"), "{text}");
        assert_eq!(
            json(&[row]).expect("numbers"),
            "[\n  {\n    \"name\": \"create\",\n    \"operations\": 3,\n    \"seconds\": 1.5\n  }\n]"
        );
    }
}
