//! The one path parser (DESIGN D8). A [`HdfsPath`] is absolute and squeezed; nobody below it checks
//! that again.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest path, in characters (HDFS: `HdfsServerConstants.MAX_PATH_LENGTH`).
pub const PATH_CHARS_MAX: usize = 8_000;
/// Deepest path (HDFS: `HdfsServerConstants.MAX_PATH_DEPTH`).
pub const PATH_DEPTH_MAX: usize = 1_000;

/// An absolute path with `//` and a final `/` squeezed away. `.`, `..` and `:` may still stand in
/// it: HDFS refuses them only where a name is created ([`HdfsPath::check_creatable`]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HdfsPath(String);

impl HdfsPath {
    /// The root directory.
    pub fn root() -> HdfsPath {
        HdfsPath("/".into())
    }

    /// Reads a path as a client sent it.
    ///
    /// # Errors
    /// [`PathError::NotAbsolute`] if it does not begin with `/`.
    pub fn parse(text: &str) -> Result<HdfsPath, PathError> {
        if !text.starts_with('/') {
            return Err(PathError::NotAbsolute(text.into()));
        }
        let mut squeezed = String::with_capacity(text.len());
        for component in text.split('/').filter(|component| !component.is_empty()) {
            squeezed.push('/');
            squeezed.push_str(component);
        }
        if squeezed.is_empty() {
            squeezed.push('/');
        }
        Ok(HdfsPath(squeezed))
    }

    /// The path as text, as HDFS prints it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// Its names from the root down; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|component| !component.is_empty())
    }

    /// How many names it has.
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// The last name; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// The directory that holds it; none for the root.
    pub fn parent(&self) -> Option<HdfsPath> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.rfind('/').unwrap_or(0);
        Some(HdfsPath(if cut == 0 { "/".into() } else { self.0[..cut].into() }))
    }

    /// The path of `name` in this directory. `name` must hold no `/`.
    pub fn join(&self, name: &str) -> HdfsPath {
        debug_assert!(!name.contains('/'), "a name has no slash");
        if self.is_root() { HdfsPath(format!("/{name}")) } else { HdfsPath(format!("{}/{name}", self.0)) }
    }

    /// The path that these names lead to from this directory: as [`HdfsPath::join`] for each, but without a copy for
    /// each.
    pub fn descend<'n>(mut self, names: impl Iterator<Item = &'n str>) -> HdfsPath {
        for name in names {
            debug_assert!(!name.contains('/'), "a name has no slash");
            if !self.is_root() {
                self.0.push('/');
            }
            self.0.push_str(name);
        }
        self
    }

    /// Whether this is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &HdfsPath) -> bool {
        ancestor.is_root()
            || self.0 == ancestor.0
            || (self.0.starts_with(&ancestor.0) && self.0.as_bytes()[ancestor.0.len()] == b'/')
    }

    /// What HDFS asks of a path that is about to be made (`DFSUtilClient.isValidName` and
    /// `FSNamesystem.checkPathLength`'s limits).
    ///
    /// # Errors
    /// [`PathError::InvalidName`] for a component `.`, `..` or one with `:`;
    /// [`PathError::TooLong`] above [`PATH_CHARS_MAX`] or [`PATH_DEPTH_MAX`].
    pub fn check_creatable(&self) -> Result<(), PathError> {
        let bad = |component: &str| component == "." || component == ".." || component.contains(':');
        // Asked several times of every change: most paths hold nothing that could be bad, and are short.
        let bytes = self.0.as_bytes();
        let suspicious = bytes.contains(&b':') || bytes.windows(2).any(|pair| pair == b"/.");
        if suspicious && self.components().any(bad) {
            return Err(PathError::InvalidName(self.0.clone()));
        }
        self.check_length()
    }

    /// The limits alone (`NameNodeRpcServer.checkPathLength`).
    ///
    /// # Errors
    /// [`PathError::TooLong`] above [`PATH_CHARS_MAX`] or [`PATH_DEPTH_MAX`].
    pub fn check_length(&self) -> Result<(), PathError> {
        let too_long = self.0.len() > PATH_DEPTH_MAX
            && (self.0.chars().count() > PATH_CHARS_MAX || self.depth() > PATH_DEPTH_MAX);
        if too_long { Err(PathError::TooLong) } else { Ok(()) }
    }
}

impl fmt::Display for HdfsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a path is refused; always the caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("Absolute path required, but got '{0}'")]
    NotAbsolute(String),
    /// A name in it cannot be made (HDFS: `InvalidPathException`).
    #[error("Invalid path name {0}")]
    InvalidName(String),
    /// Longer or deeper than HDFS allows.
    #[error("Pathname too long.  Limit {PATH_CHARS_MAX} characters, {PATH_DEPTH_MAX} levels.")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squeezes_slashes_and_keeps_dots() {
        for (text, expected) in
            [("/", "/"), ("//", "/"), ("/a//b/", "/a/b"), ("/a/../b", "/a/../b"), ("/./a", "/./a")]
        {
            assert_eq!(HdfsPath::parse(text).expect(text).as_str(), expected);
        }
        assert_eq!(HdfsPath::parse("a"), Err(PathError::NotAbsolute("a".into())));
        assert_eq!(HdfsPath::parse(""), Err(PathError::NotAbsolute(String::new())));
    }

    #[test]
    fn a_path_is_within_its_ancestors_and_no_namesake() {
        let path = |text| HdfsPath::parse(text).expect("absolute");
        assert!(path("/a/b").is_within(&path("/a")));
        assert!(path("/a").is_within(&path("/a")));
        assert!(path("/a").is_within(&path("/")));
        assert!(!path("/ab").is_within(&path("/a")));
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(path("/")));
        assert_eq!(path("/").parent(), None);
        assert_eq!(path("/a/b").name(), "b");
        assert_eq!(path("/").descend(["a", "b"].into_iter()), path("/a/b"));
        assert_eq!(path("/a").descend(["b", "c"].into_iter()), path("/a").join("b").join("c"));
    }

    #[test]
    fn names_that_hdfs_will_not_make() {
        let check = |text: &str| HdfsPath::parse(text).expect("absolute").check_creatable();
        assert_eq!(check("/a/b.c"), Ok(()));
        assert_eq!(check("/a/../b"), Err(PathError::InvalidName("/a/../b".into())));
        assert_eq!(check("/a:b"), Err(PathError::InvalidName("/a:b".into())));
        assert_eq!(check("/."), Err(PathError::InvalidName("/.".into())));
        assert_eq!(check("/a/.hidden/..b/c..d"), Ok(()));
        assert_eq!(check(&"/a".repeat(1_000)), Ok(()));
        assert_eq!(check(&"/a".repeat(1_001)), Err(PathError::TooLong));
        assert_eq!(check(&format!("/{}", "a".repeat(8_000))), Err(PathError::TooLong));
        let deep_and_bad = HdfsPath::parse(&"/a:b".repeat(1_001)).expect("absolute");
        assert_eq!(deep_and_bad.check_length(), Err(PathError::TooLong));
    }
}
