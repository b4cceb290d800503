//! A path that a verb works on: as typed, where it lies, and what is there (Hadoop's `PathData`).

use super::address;
use super::failure::{Failure, Outcome};
use super::filesystem::FileSystem;
use super::status::Status;

/// A path with what is there. It prints as it was typed, children with the typed path before them.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where it lies.
    pub fs: FileSystem,
    /// How it prints.
    pub text: String,
    /// Absolute, without `//`, `.` and `..`.
    pub path: String,
    /// What is there; `None` for nothing.
    pub status: Option<Status>,
}

impl Item {
    /// Looks up what is at a path that was typed as `text`.
    pub async fn look_up(fs: &FileSystem, text: String, path: String) -> Outcome<Item> {
        fs.check_name(&path, &text)?;
        let status = fs.status(&path).await?;
        Ok(Item { fs: fs.clone(), text, path, status })
    }

    /// Whether there is something.
    pub fn exists(&self) -> bool {
        self.status.is_some()
    }

    /// Whether there is a directory.
    pub fn is_directory(&self) -> bool {
        self.status.as_ref().is_some_and(Status::is_directory)
    }

    /// The status of what is there.
    ///
    /// # Errors
    /// Nothing is there.
    pub fn status(&self) -> Outcome<&Status> {
        self.status.as_ref().ok_or_else(|| Failure::not_found(&self.text))
    }

    /// The path with scheme and host. Java writes a local one that was typed from the root with three
    /// slashes, and one that it had to complete with one.
    pub fn qualified(&self) -> String {
        match &self.fs {
            FileSystem::Local(_) if self.text.starts_with('/') || self.text.starts_with("file://") => {
                format!("file://{}", self.path)
            }
            fs => fs.qualified(&self.path),
        }
    }

    /// The last name of the path.
    pub fn name(&self) -> &str {
        address::name(&self.path)
    }

    /// Looks again.
    ///
    /// # Errors
    /// Nothing is there (any more).
    pub async fn refresh(&mut self) -> Outcome<&Status> {
        self.status = self.fs.status(&self.path).await?;
        self.status()
    }

    /// The part of the typed text behind scheme and host.
    fn typed_path(&self) -> &str {
        match self.text.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("", |slash| &rest[slash..]),
            None => &self.text,
        }
    }

    /// Whether it was typed like a directory: with `/`, `.` or `..` at the end.
    pub fn is_typed_as_directory(&self) -> bool {
        matches!(address::name(self.typed_path()), "" | "." | "..")
    }

    /// Whether the directory exists that this is in, or shall be.
    pub async fn parent_exists(&self) -> Outcome<bool> {
        self.fs.check_name(&self.path, &self.text)?;
        if self.is_typed_as_directory() {
            return self.fs.exists(&self.path).await;
        }
        match address::parent(&self.path) {
            Some(parent) => self.fs.exists(parent).await,
            None => Ok(true),
        }
    }

    /// How a child prints.
    fn child_text(&self, name: &str) -> String {
        if self.text == "." {
            name.to_owned()
        } else if self.typed_path().ends_with('/') {
            format!("{}{name}", self.text)
        } else {
            format!("{}/{name}", self.text)
        }
    }

    /// A child of this directory whose status is known.
    pub fn child_with(&self, name: &str, status: Option<Status>) -> Item {
        Item {
            fs: self.fs.clone(),
            text: self.child_text(name),
            path: address::join(&self.path, name),
            status,
        }
    }

    /// A child of this directory, looked up.
    ///
    /// # Errors
    /// This is no directory.
    pub async fn child(&self, name: &str) -> Outcome<Item> {
        if !self.status()?.is_directory() {
            return Err(Failure::not_directory(&self.text));
        }
        let child = self.new_child(name)?;
        let status = self.fs.status(&child.path).await?;
        Ok(Item { status, ..child })
    }

    /// A child of this directory that is not there.
    ///
    /// # Errors
    /// There can be none of that name.
    pub fn new_child(&self, name: &str) -> Outcome<Item> {
        let child = self.child_with(name, None);
        self.fs.check_name(&child.path, &child.text)?;
        Ok(child)
    }

    /// All children of this directory.
    ///
    /// # Errors
    /// This is no directory.
    pub async fn children(&self) -> Outcome<Vec<Item>> {
        if !self.status()?.is_directory() {
            return Err(Failure::not_directory(&self.text));
        }
        let entries = self.fs.list(&self.path).await?;
        let child = |status: Status| {
            let name = status.name.clone();
            self.child_with(&name, Some(status))
        };
        Ok(entries.into_iter().map(child).collect())
    }

    /// The same path with something behind its name.
    pub fn with_suffix(&self, suffix: &str) -> Item {
        Item {
            fs: self.fs.clone(),
            text: format!("{}{suffix}", self.text),
            path: format!("{}{suffix}", self.path),
            status: None,
        }
    }
}
