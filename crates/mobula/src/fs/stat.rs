//! `stat`.

use super::date;
use super::failure::Outcome;
use super::item::Item;
use super::listing;
use super::mode;
use super::options::{Format, MANY};
use super::shell::Shell;
use super::status::{Kind, Status};
use super::walk::Walk;

/// Prints statuses in a format of one's own.
pub async fn stat(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let options = Format::new(1, MANY, &["R"]);
    let recursive = options.parse(&mut args)?.has("R");
    let mut format = "%y".to_owned();
    if args[0].contains('%') {
        format = args.remove(0);
    }
    // A path must be left.
    options.parse(&mut args)?;
    let items = shell.expand_all(&args).await?;
    let mut walk = Walk::over(items);
    while let Some((_, item)) = walk.next() {
        if !shell.is_there(&item) {
            continue;
        }
        let status = item.status()?;
        let line = match shell.json {
            true => listing::as_json(&item, status).to_string(),
            false => fill(&format, &item, status),
        };
        shell.line(line)?;
        if recursive && item.is_directory() {
            let children = shell.children_of(&item).await;
            walk.descend(children);
        }
    }
    Ok(())
}

fn fill(format: &str, item: &Item, status: &Status) -> String {
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        // A percent sign at the end is dropped, an unknown letter stands for itself.
        let Some(what) = letters.next() else { break };
        match what {
            'a' => text.push_str(&format!("{:o}", status.mode)),
            'A' => text.push_str(&mode::symbols(status.mode)),
            'b' => text.push_str(&status.length.to_string()),
            'F' => text.push_str(match status.kind {
                Kind::File => "regular file",
                Kind::Directory => "directory",
                Kind::Symlink => "symlink",
            }),
            'g' => text.push_str(&status.group),
            'n' => text.push_str(item.name()),
            'o' => text.push_str(&status.block_size.to_string()),
            'r' => text.push_str(&status.replication.to_string()),
            'u' => text.push_str(&status.owner),
            'x' => text.push_str(&date::local_second(status.accessed_ms)),
            'X' => text.push_str(&status.accessed_ms.to_string()),
            'y' => text.push_str(&date::local_second(status.modified_ms)),
            'Y' => text.push_str(&status.modified_ms.to_string()),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::filesystem::FileSystem;
    use super::super::local::Local;
    use super::*;

    #[test]
    fn every_letter() {
        let status = Status {
            name: String::new(),
            kind: Kind::File,
            length: 12,
            replication: 3,
            block_size: 1 << 27,
            modified_ms: 1_000,
            accessed_ms: 62_000,
            owner: "alice".into(),
            group: "staff".into(),
            mode: 0o1644,
            has_acl: false,
            erasure_policy: None,
        };
        let item = Item {
            fs: FileSystem::Local(Local::new(0o022)),
            text: "dir/f".into(),
            path: "/home/dir/f".into(),
            status: Some(status.clone()),
        };
        let fill = |format| fill(format, &item, &status);
        assert_eq!(
            fill("%F %u %g %b %n %o %r %a %A"),
            "regular file alice staff 12 f 134217728 3 1644 rw-r--r-T"
        );
        let (modified, accessed) = (date::local_second(1_000), date::local_second(62_000));
        assert_eq!(fill("%y|%Y|%x|%X"), format!("{modified}|1000|{accessed}|62000"));
        assert_eq!(fill("100%% %q%"), "100% q");
    }
}
