//! `rm`.

use std::io::BufRead;

use super::failure::{Failure, Kind, Outcome};
use super::item::Item;
use super::options::{Format, MANY};
use super::shell::Shell;
use super::trash;
use super::usage::Content;

/// Files in a directory from which on `rm -safely` asks
/// (`hadoop.shell.safely.delete.limit.num.files`).
const SAFE_FILES_MAX: u64 = 100;

struct Removal {
    recursive: bool,
    forgive: bool,
    skip_trash: bool,
    safely: bool,
}

/// Removes files and directories, into the trash if there is one.
pub async fn rm(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let given = Format::new(1, MANY, &["f", "r", "R", "skipTrash", "safely"]).parse(&mut args)?;
    let removal = Removal {
        recursive: given.has("r") || given.has("R"),
        forgive: given.has("f"),
        skip_trash: given.has("skipTrash"),
        safely: given.has("safely"),
    };
    let mut items = Vec::new();
    for arg in &args {
        match shell.expand_some(arg).await {
            Ok(found) => items.extend(found),
            Err(failure) if failure.kind == Kind::NotFound && removal.forgive => {}
            Err(failure) => shell.settle(Err(failure))?,
        }
    }
    for item in items {
        if item.exists() {
            let removed = removal.remove(shell, &item).await;
            shell.settle(removed)?;
        } else if !removal.forgive {
            shell.fail(&Failure::not_found(&item.text));
        }
    }
    Ok(())
}

impl Removal {
    async fn remove(&self, shell: &mut Shell, item: &Item) -> Outcome<()> {
        if item.is_directory() && !self.recursive {
            return Err(Failure::is_directory(&item.text));
        }
        if !self.skip_trash && trash::take(shell, item).await? {
            return Ok(());
        }
        if self.safely && !self.is_confirmed(shell, item).await? {
            return Ok(());
        }
        if !item.fs.delete(&item.path, self.recursive).await? {
            return Err(Failure::refused(&item.text));
        }
        shell.line(format!("Deleted {}", item.text))
    }

    /// Asks before a large directory is deleted for good.
    async fn is_confirmed(&self, shell: &mut Shell, item: &Item) -> Outcome<bool> {
        let limit = shell.setting("hadoop.shell.safely.delete.limit.num.files");
        let limit = limit.and_then(|text| text.trim().parse().ok()).unwrap_or(SAFE_FILES_MAX);
        if !item.is_directory() || limit == 0 {
            return Ok(true);
        }
        let files = Content::of(item).await?.files;
        if files <= limit {
            return Ok(true);
        }
        shell.flush()?;
        let yes = ask(&format!("Proceed deleting {files} files?"));
        if !yes {
            shell.warn("Delete aborted at user request.\n");
        }
        Ok(yes)
    }
}

/// Asks until the answer is one. Where nobody answers it is no; Java asks for ever.
fn ask(question: &str) -> bool {
    loop {
        eprint!("{question} (Y or N) ");
        let mut answer = String::new();
        // Nothing else is under way that this could hold up.
        if !std::io::stdin().lock().read_line(&mut answer).is_ok_and(|length| length > 0) {
            return false;
        }
        let answer = answer.trim_end_matches(['\r', '\n']);
        match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => return true,
            "n" | "no" => return false,
            _ => eprintln!("Invalid input: {answer}"),
        }
    }
}
