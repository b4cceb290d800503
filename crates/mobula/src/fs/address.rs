//! Paths as they are typed: `dir/file`, `/dir`, `hdfs://host:port/dir`, `file:///tmp/x` (Hadoop's
//! `Path`). Nothing in them is decoded: `%20` and `?` stand for themselves.

use std::cmp::Ordering;

use super::failure::{Failure, Outcome};

/// The parts of a typed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `hdfs`, `file`...
    pub scheme: Option<String>,
    /// `host:port`; `None` where there is none or an empty one.
    pub authority: Option<String>,
    /// The rest, as typed.
    pub path: String,
}

impl Address {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// Empty text, or a scheme without a `/` behind it.
    pub fn parse(text: &str) -> Outcome<Address> {
        if text.is_empty() {
            return Err(Failure::usage("Can not create a Path from an empty string"));
        }
        let slash = text.find('/').unwrap_or(text.len());
        let (scheme, rest) = match text[..slash].find(':') {
            None => (None, text),
            Some(0) => {
                return Err(Failure::usage(format!(
                    "java.net.URISyntaxException: Expected scheme name at index 0: {text}"
                )));
            }
            Some(colon) if text[colon + 1..].starts_with('/') => {
                (Some(text[..colon].to_owned()), &text[colon + 1..])
            }
            Some(_) => {
                return Err(Failure::usage(format!(
                    "java.net.URISyntaxException: Relative path in absolute URI: {text}"
                )));
            }
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) if scheme.is_some() => {
                let end = rest.find('/').unwrap_or(rest.len());
                (Some(rest[..end].to_owned()).filter(|authority| !authority.is_empty()), &rest[end..])
            }
            _ => (None, rest),
        };
        Ok(Address { scheme, authority, path: path.to_owned() })
    }

    /// Whether the path begins at the root.
    pub fn is_absolute(&self) -> bool {
        self.path.starts_with('/') || self.scheme.is_some()
    }
}

/// An absolute path without `//`, `.`, `x/..` and a `/` at the end; `path` is taken to lie in `home`
/// if it does not begin at the root.
pub fn absolute(path: &str, home: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{home}/{path}") };
    let mut names: Vec<&str> = Vec::new();
    for name in whole.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => {
                names.pop();
            }
            other => names.push(other),
        }
    }
    format!("/{}", names.join("/"))
}

/// The last name of an absolute path; empty for the root.
pub fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or("")
}

/// The directory that holds an absolute path; `None` for the root.
pub fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        cut => Some(&path[..cut]),
    }
}

/// The path of `name` in the directory `path`.
pub fn join(path: &str, name: &str) -> String {
    if path.ends_with('/') { format!("{path}{name}") } else { format!("{path}/{name}") }
}

/// Which of two paths comes first. Java compares URIs as they are written, in which a blank is `%20` and a bracket
/// `%5B`: both come before a dash.
pub fn order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.chars(), b.chars());
    loop {
        match (a.next(), b.next()) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => return written(a).cmp(&written(b)),
            (a, b) => return a.is_some().cmp(&b.is_some()),
        }
    }
}

/// A character of a path as Java's `URI` writes it, in UTF-16.
fn written(letter: char) -> Vec<u16> {
    let plain = match letter {
        '\0'..='\u{7f}' => letter.is_ascii_alphanumeric() || "_-!.~'()*:@&=+$,;/".contains(letter),
        _ => !letter.is_whitespace() && !letter.is_control(),
    };
    let bytes = || letter.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let text = if plain { letter.to_string() } else { bytes() };
    text.encode_utf16().collect()
}

/// `path` as it is written from the directory `home`: both absolute.
pub fn relative(home: &str, path: &str, directory: bool) -> String {
    if home == path {
        return ".".into();
    }
    let from = format!("{}/", home.trim_end_matches('/'));
    let to = if directory && !path.ends_with('/') { format!("{path}/") } else { path.to_owned() };
    let shared = from.bytes().zip(to.bytes()).take_while(|(a, b)| a == b).count();
    // Paths share whole names only: up to the last slash that both have.
    let shared = from[..shared_boundary(&from, shared)].rfind('/').unwrap_or(0);
    let ups = home.get(shared..).map_or(0, |rest| rest.bytes().filter(|byte| *byte == b'/').count());
    let down = path.get(shared + 1..).unwrap_or("");
    let mut names = vec![".."; ups];
    if !down.is_empty() {
        names.push(down);
    }
    names.join("/")
}

fn shared_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parts(text: &str) -> (Option<String>, Option<String>, String) {
        let address = Address::parse(text).unwrap();
        (address.scheme, address.authority, address.path)
    }

    #[test]
    fn taken_apart() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts("/a/b"), (None, None, "/a/b".into()));
        assert_eq!(parts("a%20?b"), (None, None, "a%20?b".into()));
        assert_eq!(parts("hdfs://h:1/a"), (some("hdfs"), some("h:1"), "/a".into()));
        assert_eq!(parts("hdfs://h:1"), (some("hdfs"), some("h:1"), String::new()));
        assert_eq!(parts("hdfs:///a"), (some("hdfs"), None, "/a".into()));
        assert_eq!(parts("file:/tmp"), (some("file"), None, "/tmp".into()));
        assert_eq!(parts("/a:b"), (None, None, "/a:b".into()));
        assert_eq!(parts("//a"), (None, None, "//a".into()));
        assert!(Address::parse("a:b").unwrap_err().message.contains("Relative path in absolute URI: a:b"));
        assert!(Address::parse(":a").is_err());
        assert!(Address::parse("").is_err());
    }

    #[test]
    fn made_absolute() {
        for (path, expected) in [
            ("/a//b/", "/a/b"),
            ("/", "/"),
            ("x", "/user/u/x"),
            (".", "/user/u"),
            ("./a/../b", "/user/u/b"),
            ("../v", "/user/v"),
            ("/../a", "/../a"),
            ("/a/./b/..", "/a"),
        ] {
            assert_eq!(absolute(path, "/user/u"), expected, "{path}");
        }
        assert_eq!((name("/a/b"), parent("/a/b")), ("b", Some("/a")));
        assert_eq!((name("/a"), parent("/a")), ("a", Some("/")));
        assert_eq!((name("/"), parent("/")), ("", None));
    }

    #[test]
    fn ordered_as_javas_uris() {
        let names = [
            "/a",
            "/a%20b",
            "/a[x]",
            "/a{",
            "/a-",
            "/a.b",
            "/a/b",
            "/a0",
            "/aA",
            "/a_",
            "/aa",
            "/a😀",
            "/a\u{ff5e}",
        ];
        for (at, first) in names.iter().enumerate() {
            for (other, second) in names.iter().enumerate() {
                assert_eq!(order(first, second), at.cmp(&other), "{first} {second}");
            }
        }
        assert_eq!(order("/a b", "/a!b"), Ordering::Greater, "%20 comes after an exclamation mark");
        assert_eq!(order("/a/b", "/a-"), Ordering::Greater);
        assert_eq!(order("/a\u{2003}", "/a-"), Ordering::Less, "all blanks are quoted");
    }

    #[test]
    fn written_from_home() {
        let relative = |path, directory| relative("/user/u", path, directory);
        assert_eq!(relative("/user/u", true), ".");
        assert_eq!(relative("/user/u/a/b", false), "a/b");
        assert_eq!(relative("/user/v", true), "../v");
        assert_eq!(relative("/tmp/x", false), "../../tmp/x");
        assert_eq!(relative("/user/ux", true), "../ux");
        assert_eq!(relative("/user", true), "..");
    }
}
