//! `ls`.

use std::cmp::Ordering;

use serde_json::json;

use super::address;
use super::date;
use super::failure::Outcome;
use super::item::Item;
use super::mode;
use super::options::{Format, MANY};
use super::shell::Shell;
use super::size::{self, Style};
use super::status::{Kind, Status};
use super::walk::Walk;

/// Entries of a folder whose columns `-R` makes equally wide (Hadoop's `DEFAULT_LISTING_GROUP_SIZE`).
const GROUP: usize = 100;

/// Which order entries come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Name,
    Time,
    Size,
}

struct Listing {
    paths_only: bool,
    into_directories: bool,
    recursive: bool,
    reverse: bool,
    order: Order,
    accessed: bool,
    printable_only: bool,
    erasure: bool,
    style: Style,
    widths: Widths,
}

/// Widths of the columns so far: they only grow, but for the policy's, as in Hadoop.
struct Widths {
    replication: usize,
    owner: usize,
    group: usize,
    length: usize,
    erasure: usize,
}

/// Lists directories and files.
pub async fn ls(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let flags = &["C", "d", "h", "q", "R", "r", "t", "S", "u", "e"];
    let given = Format::new(0, MANY, flags).parse(&mut args)?;
    if args.is_empty() {
        args.push(".".into());
    }
    let order = match (given.has("t"), given.has("S")) {
        (true, _) => Order::Time,
        (false, true) => Order::Size,
        (false, false) => Order::Name,
    };
    let mut listing = Listing {
        paths_only: given.has("C"),
        into_directories: !given.has("d"),
        recursive: given.has("R") && !given.has("d"),
        reverse: given.has("r"),
        order,
        accessed: given.has("u"),
        printable_only: given.has("q"),
        erasure: given.has("e"),
        style: Style::of(given.has("h")),
        widths: Widths { replication: 3, owner: 0, group: 0, length: 10, erasure: 0 },
    };
    for item in shell.expand_all(&args).await? {
        if !shell.is_there(&item) {
            continue;
        }
        let listed = listing.list(shell, item).await;
        shell.settle(listed)?;
    }
    Ok(())
}

impl Listing {
    async fn list(&mut self, shell: &mut Shell, item: Item) -> Outcome<()> {
        let items = if self.into_directories && item.is_directory() {
            let mut children = item.children().await?;
            if !self.recursive && !children.is_empty() {
                if !self.paths_only && !shell.json {
                    shell.line(format!("Found {} items", children.len()))?;
                }
                children.sort_by(|a, b| self.compare(a, b));
            }
            children
        } else {
            vec![item]
        };
        // What is sorted by other things than names is not listed by and by.
        let by_and_by = self.recursive && self.order == Order::Name && !self.reverse;
        let group = if by_and_by { GROUP } else { usize::MAX };
        let mut walk = Walk::over(items);
        while let Some((_, item)) = walk.next() {
            let (before, after) = walk.siblings();
            if before % group == 0 {
                self.widths.erasure = 0;
                self.widen(&item);
                after.iter().take(group - 1).for_each(|item| self.widen(item));
            }
            self.print(shell, &item).await?;
            if self.recursive && item.is_directory() {
                let children = shell.children_of(&item).await;
                walk.descend(children);
            }
        }
        Ok(())
    }

    fn time(&self, status: &Status) -> u64 {
        if self.accessed { status.accessed_ms } else { status.modified_ms }
    }

    fn compare(&self, a: &Item, b: &Item) -> Ordering {
        let by = |of: &dyn Fn(&Status) -> u64| {
            let of = |item: &Item| item.status.as_ref().map_or(0, of);
            of(b).cmp(&of(a))
        };
        let order = match self.order {
            Order::Name => address::order(&a.path, &b.path),
            Order::Time => by(&|status| self.time(status)),
            Order::Size => by(&|status| status.length),
        };
        if self.reverse { order.reverse() } else { order }
    }

    fn widen(&mut self, item: &Item) {
        let Some(status) = &item.status else { return };
        let widths = &mut self.widths;
        widths.replication = widths.replication.max(digits(u64::from(status.replication)));
        widths.length = widths.length.max(digits(status.length));
        widths.owner = widths.owner.max(status.owner.chars().count());
        widths.group = widths.group.max(status.group.chars().count());
        widths.erasure = widths.erasure.max(erasure_name(status).len());
    }

    async fn print(&self, shell: &mut Shell, item: &Item) -> Outcome<()> {
        let status = item.status()?;
        if shell.json {
            let value = as_json(item, status);
            return shell.line(value.to_string());
        }
        if self.paths_only {
            return shell.line(&item.text);
        }
        let widths = &self.widths;
        let replication = match status.kind {
            Kind::File => status.replication.to_string(),
            _ => "-".into(),
        };
        let column = |text: &str, width: usize| match width {
            0 => String::new(),
            width => format!("{text:<width$} "),
        };
        let erasure = match self.erasure {
            true => column(erasure_name(status), widths.erasure),
            false => String::new(),
        };
        shell.line(format!(
            "{}{}{}{replication:>rwidth$} {}{}{erasure}{:>lwidth$} {} {}",
            if status.is_directory() { "d" } else { "-" },
            mode::symbols(status.mode),
            if status.has_acl { "+" } else { " " },
            column(&status.owner, widths.owner),
            column(&status.group, widths.group),
            size::format(status.length, self.style),
            date::local_minute(self.time(status)),
            self.shown(&item.text),
            rwidth = widths.replication,
            lwidth = widths.length,
        ))
    }

    fn shown(&self, text: &str) -> String {
        if !self.printable_only {
            return text.to_owned();
        }
        text.chars().map(|c| if is_printable(c) { c } else { '?' }).collect()
    }
}

/// Whether a character shows: no control, format or private one (Java's `PrintableString`, but for those
/// that Unicode has not given out).
fn is_printable(c: char) -> bool {
    !c.is_control() && !UNPRINTABLE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Unicode's format characters, private characters, and those that are none.
const UNPRINTABLE: &[(char, char)] = &[
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{e000}', '\u{f8ff}'),
    ('\u{fdd0}', '\u{fdef}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{fffe}', '\u{ffff}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
    ('\u{f0000}', '\u{10ffff}'),
];

fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

fn erasure_name(status: &Status) -> &str {
    match (&status.erasure_policy, status.kind) {
        (Some(name), _) => name,
        (None, Kind::File) => "Replicated",
        (None, _) => "",
    }
}

/// A status for programs: one line of JSON.
pub fn as_json(item: &Item, status: &Status) -> serde_json::Value {
    json!({
        "path": item.text,
        "type": match status.kind {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Symlink => "symlink",
        },
        "length": status.length,
        "replication": status.replication,
        "block_size": status.block_size,
        "owner": status.owner,
        "group": status.group,
        "permission": format!("{:o}", status.mode),
        "modified_ms": status.modified_ms,
        "accessed_ms": status.accessed_ms,
    })
}
