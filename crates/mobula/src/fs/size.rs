//! Sizes for people, and columns that line up.

/// Letters of the binary prefixes, from 2^10 on.
const PREFIXES: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];

/// A number of bytes with a binary prefix and one decimal, by the rules of Hadoop's
/// `StringUtils.TraditionalBinaryPrefix`: `1023`, `1 K`, `2.9 M`.
pub fn human(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    let size = bytes.unsigned_abs();
    if size < 1024 {
        return format!("{sign}{size}");
    }
    let mut prefix = (size.ilog2() / 10) as usize;
    if size & ((1 << (10 * prefix)) - 1) == 0 {
        return format!("{sign}{} {}", size >> (10 * prefix), PREFIXES[prefix - 1]);
    }
    let mut text = one_decimal(size, prefix);
    if text.starts_with("1024") && prefix < PREFIXES.len() {
        prefix += 1;
        text = one_decimal(size, prefix);
    }
    format!("{sign}{text} {}", PREFIXES[prefix - 1])
}

/// `size` over 2^(10 prefix), halves rounded up: Java does so, Rust's formatting to even.
fn one_decimal(size: u64, prefix: usize) -> String {
    let shift = 10 * prefix;
    let tenths = (u128::from(size) * 10 + (1 << (shift - 1))) >> shift;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A size as it is, or for people.
pub fn format(bytes: u64, style: Style) -> String {
    match style {
        Style::Exact => bytes.to_string(),
        Style::Human => human(bytes as i64),
    }
}

/// How sizes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// All digits.
    Exact,
    /// With a prefix, as `-h` asks.
    Human,
}

impl Style {
    /// What `-h` means.
    pub fn of(human: bool) -> Style {
        if human { Style::Human } else { Style::Exact }
    }
}

/// Rows of text whose columns line up, two blanks between them.
#[derive(Clone, Debug)]
pub struct Table {
    right: &'static [usize],
    rows: Vec<Vec<String>>,
    headed: bool,
}

impl Table {
    /// A table without a head; the columns named in `right` end in line.
    pub fn new(right: &'static [usize]) -> Table {
        Table { right, rows: Vec::new(), headed: false }
    }

    /// With a head.
    pub fn with_head(mut self, head: &[&str]) -> Table {
        self.rows.insert(0, head.iter().map(|title| (*title).to_owned()).collect());
        self.headed = true;
        self
    }

    /// One more row; all rows have as many cells.
    pub fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Whether there is no row but the head.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == usize::from(self.headed)
    }

    /// The lines, without a blank at the end of a last column that begins in line.
    pub fn lines(&self) -> Vec<String> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].encode_utf16().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = widths[column];
                if self.right.contains(&column) {
                    format!("{cell:>width$}")
                } else if column + 1 < columns {
                    format!("{cell:<width$}")
                } else {
                    cell.clone()
                }
            });
            cells.collect::<Vec<_>>().join("  ")
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_hadoop_writes_them() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1 K"),
            (1025, "1.0 K"),
            (1536, "1.5 K"),
            (1280, "1.3 K"), // 1.25: half up
            (3_000_001, "2.9 M"),
            (4_401_832, "4.2 M"),
            ((1 << 20) - 1, "1.0 M"), // 1024.0 K moves on
            (1 << 30, "1 G"),
            (-1536, "-1.5 K"),
            (i64::MAX, "8.0 E"),
            (i64::MIN, "-8 E"),
        ] {
            assert_eq!(human(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn columns_line_up_without_blanks_at_the_end() {
        let mut table = Table::new(&[]).with_head(&["SIZE", "DISK_SPACE", "NAME"]);
        assert!(table.is_empty());
        table.push(vec!["8".into(), "16".into(), "/a".into()]);
        assert!(!table.is_empty());
        assert_eq!(table.lines(), ["SIZE  DISK_SPACE  NAME", "8     16          /a"]);
        let mut table = Table::new(&[1]);
        table.push(vec!["a".into(), "100".into()]);
        table.push(vec!["bc".into(), "2".into()]);
        assert_eq!(table.lines(), ["a   100", "bc    2"]);
    }
}
