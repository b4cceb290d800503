//! What the demo shows: pleasant on a terminal, plain lines in a pipe.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use comfy_table::{Cell, Color, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

/// Rows of a table of replicas that are shown; a large file has more blocks than a person wants.
const ROWS_MAX: usize = 24;

/// Where the demo is shown, and since when.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    start: Instant,
    step: usize,
}

/// One row of the table of replicas: a block, and by DataNode whether it holds a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `blk_1073741825`
    pub block: String,
    /// Bytes.
    pub length: u64,
    /// By DataNode.
    pub replicas: Vec<bool>,
}

impl Screen {
    /// Standard output.
    pub fn new() -> Screen {
        Screen { terminal: std::io::stdout().is_terminal(), start: Instant::now(), step: 0 }
    }

    /// Time since the demo began.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// A new act.
    pub fn step(&mut self, title: &str) {
        self.step += 1;
        if self.terminal {
            println!("\n\x1b[1m{}. {title}\x1b[0m", self.step);
        } else {
            println!("\n{}. {title}", self.step);
        }
    }

    /// A line of what happens.
    pub fn line(&self, text: &str) {
        println!("   {text}");
    }

    /// A line with the time since `from`.
    pub fn at(&self, from: Instant, text: &str) {
        println!("   +{:5.2} s  {text}", from.elapsed().as_secs_f64());
    }

    /// Which replica of which block is where. Dead nodes are named as such.
    pub fn replicas(&self, nodes: &[(String, bool)], rows: &[Row]) {
        if self.terminal {
            println!("{}", table(nodes, rows));
        } else {
            for row in rows.iter().take(ROWS_MAX) {
                let holders = nodes.iter().zip(&row.replicas).filter(|(_, held)| **held);
                let names: Vec<&str> = holders.map(|((name, _), _)| name.as_str()).collect();
                println!("   {}  {:>9} bytes  {}", row.block, row.length, names.join(" "));
            }
        }
        if rows.len() > ROWS_MAX {
            println!("   ... and {} more blocks", rows.len() - ROWS_MAX);
        }
    }

    /// A bar over `total` blocks; in a pipe it shows nothing.
    pub fn bar(&self, total: u64) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(total);
        let style = ProgressStyle::with_template("   healing [{bar:40.cyan}] {pos}/{len} blocks");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    }
}

fn table(nodes: &[(String, bool)], rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    let mut head = vec![Cell::new("block"), Cell::new("bytes")];
    head.extend(nodes.iter().map(|(name, runs)| match runs {
        true => Cell::new(name),
        false => Cell::new(format!("{name} \u{2717}")).fg(Color::Red),
    }));
    table.set_header(head);
    for row in rows.iter().take(ROWS_MAX) {
        let mut cells = vec![Cell::new(&row.block), Cell::new(row.length)];
        cells.extend(row.replicas.iter().map(|held| match held {
            true => Cell::new("\u{25cf}").fg(Color::Green),
            false => Cell::new("\u{b7}"),
        }));
        table.add_row(cells);
    }
    table
}

/// Bytes as a person reads them.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for next in UNITS {
        if value < 1_000.0 {
            break;
        }
        value /= 1_000.0;
        unit = next;
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        assert_eq!(size(999), "999 bytes");
        assert_eq!(size(1_500), "1.5 KB");
        assert_eq!(size(12_345_678), "12.3 MB");
    }
}
