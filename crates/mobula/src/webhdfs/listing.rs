//! A directory of any size as one JSON text, a page at a time.

use std::sync::Arc;

use mobula_namenode::{Asker, Service};
use mobula_namespace::{FileStatus, Listing};
use mobula_types::HdfsPath;
use serde_json::Value;

use super::json;

/// The parts of a `LISTSTATUS`, made as they are read.
#[derive(Debug)]
pub struct ListingParts {
    service: Arc<Service>,
    asker: Asker,
    path: HdfsPath,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    First(Listing),
    After(Vec<u8>),
    End,
    Over,
}

/// An entry under its own name.
pub fn entry(status: &FileStatus) -> Value {
    json::status(status, &String::from_utf8_lossy(&status.name))
}

impl ListingParts {
    /// A listing whose first page is there: what can be refused was not.
    pub fn new(service: Arc<Service>, asker: Asker, path: HdfsPath, first: Listing) -> ListingParts {
        ListingParts { service, asker, path, stage: Stage::First(first) }
    }

    /// The next part, never an empty one; none at the end. What is refused in the middle ends it in the middle, so that
    /// nobody takes a part of the directory for all of it.
    ///
    /// # Errors
    /// The directory is gone, or may not be read any more.
    pub fn next_part(&mut self) -> std::io::Result<Option<String>> {
        let (page, begin) = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::First(page) => (page, "{\"FileStatuses\":{\"FileStatus\":[\n"),
            Stage::After(name) => (self.page(&name)?, ",\n"),
            Stage::End => return Ok(Some("\n]}}\n".into())),
            Stage::Over => return Ok(None),
        };
        let entries: Vec<String> = page.entries.iter().map(|status| entry(status).to_string()).collect();
        let separator = if entries.is_empty() && begin == ",\n" { "" } else { begin };
        self.stage = match page.entries.last() {
            Some(last) if page.remaining > 0 => Stage::After(last.name.clone()),
            _ => Stage::End,
        };
        let part = format!("{separator}{}", entries.join(",\n"));
        if part.is_empty() { self.next_part() } else { Ok(Some(part)) }
    }

    fn page(&self, after: &[u8]) -> std::io::Result<Listing> {
        let page = self.service.listing(&self.asker, &self.path, after, self.service.listing_max());
        page.ok().flatten().ok_or_else(|| std::io::Error::other("the directory cannot be listed any more"))
    }
}
