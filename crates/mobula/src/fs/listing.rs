//! `ls`.

use std::cmp::Ordering;

use serde_json::json;

use super::date;
use super::failure::Outcome;
use super::item::Item;
use super::mode;
use super::options::{Format, MANY};
use super::shell::Shell;
use super::size::{self, Style};
use super::status::{Kind, Status};
use super::walk::Walk;

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

/// Widths of the columns so far: they only grow, as in Hadoop.
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
        self.widen(&items);
        let mut walk = Walk::over(items);
        while let Some((_, item)) = walk.next() {
            self.print(shell, &item).await?;
            if self.recursive && item.is_directory() {
                let children = shell.children_of(&item).await;
                self.widen(&children);
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
            Order::Name => a.path.cmp(&b.path),
            Order::Time => by(&|status| self.time(status)),
            Order::Size => by(&|status| status.length),
        };
        if self.reverse { order.reverse() } else { order }
    }

    fn widen(&mut self, items: &[Item]) {
        let widths = &mut self.widths;
        for status in items.iter().filter_map(|item| item.status.as_ref()) {
            widths.replication = widths.replication.max(digits(u64::from(status.replication)));
            widths.length = widths.length.max(digits(status.length));
            widths.owner = widths.owner.max(status.owner.chars().count());
            widths.group = widths.group.max(status.group.chars().count());
            widths.erasure = widths.erasure.max(erasure_name(status).len());
        }
    }

    async fn print(&self, shell: &mut Shell, item: &Item) -> Outcome<()> {
        let status = item.status()?;
        if shell.json {
            let value = as_json(item, status);
            return shell.line(value.to_string());
        }
        if self.paths_only {
            let text = self.shown(&item.text);
            return shell.line(text);
        }
        let widths = &self.widths;
        let replication = match status.kind {
            Kind::File => status.replication.to_string(),
            _ => "-".into(),
        };
        let erasure = match self.erasure {
            true => format!("{:<width$} ", erasure_name(status), width = widths.erasure),
            false => String::new(),
        };
        let column = |text: &str, width: usize| match width {
            0 => String::new(),
            width => format!("{text:<width$} "),
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
        text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }
}

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
