//! Hadoop's globs (`GlobPattern`, `GlobExpander`): `*`, `?`, `[a-z]`, `[^a]`, `{a,b}` and `\` before
//! a character that stands for itself. A pattern matches one name, never across a `/`; braces that
//! hold a `/` are multiplied out first.
//!
//! Matching walks sets of positions instead of backtracking: time grows with pattern times name.

use super::failure::{Failure, Outcome};

/// A pattern for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    nodes: Vec<Node>,
    wild: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    /// This character.
    Literal(char),
    /// Any one character.
    One,
    /// Any characters.
    Any,
    /// One of these characters, or none of them.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// Any of these.
    Group(Vec<Vec<Node>>),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Braces or brackets left open, or a `\` at the end.
    pub fn parse(text: &str) -> Outcome<Pattern> {
        let chars: Vec<char> = text.chars().collect();
        let mut parser = Parser { text, chars: &chars, at: 0, wild: false };
        let nodes = parser.sequence(0)?;
        Ok(Pattern { nodes, wild: parser.wild })
    }

    /// Whether there is anything but literal characters.
    pub fn is_wild(&self) -> bool {
        self.wild
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let mut from = vec![false; name.len() + 1];
        from[0] = true;
        advance(&self.nodes, &name, from)[name.len()]
    }
}

/// Where a match of `nodes` may end that begins at one of the positions `from`.
fn advance(nodes: &[Node], name: &[char], from: Vec<bool>) -> Vec<bool> {
    nodes.iter().fold(from, |from, node| step(node, name, &from))
}

fn step(node: &Node, name: &[char], from: &[bool]) -> Vec<bool> {
    let mut to = vec![false; from.len()];
    let one = |to: &mut Vec<bool>, fits: &dyn Fn(char) -> bool| {
        for (at, c) in name.iter().enumerate() {
            to[at + 1] = from[at] && fits(*c);
        }
    };
    match node {
        Node::Literal(wanted) => one(&mut to, &|c| c == *wanted),
        // A dot of Java's regular expressions, which Hadoop translates to, is no line break.
        Node::One => one(&mut to, &|c| c != '\n'),
        Node::Any => {
            for at in 0..to.len() {
                to[at] = from[at] || at > 0 && to[at - 1] && name[at - 1] != '\n';
            }
        }
        Node::Class { negated, ranges } => {
            one(&mut to, &|c| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated)
        }
        Node::Group(choices) => {
            for choice in choices {
                let ends = advance(choice, name, from.to_vec());
                to.iter_mut().zip(ends).for_each(|(to, end)| *to |= end);
            }
        }
    }
    to
}

struct Parser<'a> {
    text: &'a str,
    chars: &'a [char],
    at: usize,
    wild: bool,
}

impl Parser<'_> {
    /// Nodes up to the end, or inside braces (`depth` > 0) up to `,` or `}`.
    fn sequence(&mut self, depth: usize) -> Outcome<Vec<Node>> {
        let mut nodes = Vec::new();
        while let Some(&c) = self.chars.get(self.at) {
            if depth > 0 && (c == ',' || c == '}') {
                return Ok(nodes);
            }
            self.at += 1;
            nodes.push(match c {
                '\\' => Node::Literal(self.escaped()?),
                '*' => self.wild(Node::Any),
                '?' => self.wild(Node::One),
                '[' => self.class()?,
                '{' => self.group(depth + 1)?,
                other => Node::Literal(other),
            });
        }
        if depth > 0 {
            return Err(self.error("Unclosed group", self.chars.len()));
        }
        Ok(nodes)
    }

    fn wild(&mut self, node: Node) -> Node {
        self.wild = true;
        node
    }

    fn group(&mut self, depth: usize) -> Outcome<Node> {
        self.wild = true;
        let mut choices = Vec::new();
        loop {
            choices.push(self.sequence(depth)?);
            self.at += 1;
            if self.chars[self.at - 1] == '}' {
                return Ok(Node::Group(choices));
            }
        }
    }

    fn class(&mut self) -> Outcome<Node> {
        self.wild = true;
        let negated = matches!(self.chars.get(self.at), Some('^' | '!'));
        self.at += usize::from(negated);
        let mut ranges = Vec::new();
        let first = self.at;
        loop {
            let unclosed = |parser: &Self| parser.error("Unclosed character class", parser.chars.len());
            let low = match self.chars.get(self.at) {
                None => return Err(unclosed(self)),
                Some(']') if self.at > first => {
                    self.at += 1;
                    return Ok(Node::Class { negated, ranges });
                }
                Some('[') => return Err(self.error("Unclosed character class", self.at)),
                Some(_) => self.class_char()?,
            };
            let is_range = self.chars.get(self.at) == Some(&'-')
                && self.chars.get(self.at + 1).is_some_and(|next| *next != ']');
            if is_range {
                self.at += 1;
                ranges.push((low, self.class_char()?));
            } else {
                ranges.push((low, low));
            }
        }
    }

    fn class_char(&mut self) -> Outcome<char> {
        self.at += 1;
        match self.chars[self.at - 1] {
            '\\' => self.escaped(),
            other => Ok(other),
        }
    }

    fn escaped(&mut self) -> Outcome<char> {
        let c = self.chars.get(self.at).copied();
        let c = c.ok_or_else(|| self.error("Missing escaped character", self.at))?;
        self.at += 1;
        Ok(c)
    }

    fn error(&self, what: &str, at: usize) -> Failure {
        Failure::other(format!(
            "Illegal file pattern: error parsing regexp: {what} at pos {at}: `{}`",
            self.text
        ))
    }
}

/// Takes the `\` before characters that stand for themselves away.
pub fn unquote(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next().unwrap_or('\\')),
            other => plain.push(other),
        }
    }
    plain
}

/// Multiplies out the braces that hold a `/`: `{a/b,c}d` gives `a/bd` and `cd`. Others stay.
///
/// # Errors
/// A `\` at the end.
pub fn expand(pattern: &str) -> Outcome<Vec<String>> {
    let mut done = Vec::new();
    let mut waiting: Vec<(Vec<char>, usize)> = vec![(pattern.chars().collect(), 0)];
    while let Some((pattern, from)) = waiting.pop() {
        match braces_with_slash(&pattern, from)? {
            None => done.push(pattern.into_iter().collect()),
            Some(open) => waiting.extend(multiply(&pattern, open).into_iter().rev()),
        }
    }
    Ok(done)
}

/// Where the first outer brace opens that holds a `/`.
fn braces_with_slash(pattern: &[char], from: usize) -> Outcome<Option<usize>> {
    let (mut depth, mut open, mut slash) = (0_usize, None, false);
    let mut at = from;
    while at < pattern.len() {
        match pattern[at] {
            '\\' => {
                at += 1;
                if at >= pattern.len() {
                    let pattern: String = pattern.iter().collect();
                    return Err(Failure::other(format!(
                        "Illegal file pattern: An escaped character does not present for glob {pattern} at {at}"
                    )));
                }
            }
            '{' => {
                if depth == 0 {
                    open = Some(at);
                }
                depth += 1;
            }
            '}' if depth > 0 => {
                depth -= 1;
                if depth == 0 && slash {
                    return Ok(open);
                }
            }
            '/' if depth > 0 => slash = true,
            _ => {}
        }
        at += 1;
    }
    Ok(None)
}

/// The patterns that the braces at `open` stand for, each with where to look on.
fn multiply(pattern: &[char], open: usize) -> Vec<(Vec<char>, usize)> {
    let mut choices: Vec<Vec<char>> = vec![Vec::new()];
    let mut depth = 0;
    let mut at = open;
    loop {
        let c = pattern[at];
        at += 1;
        let last = choices.last_mut().expect("it begins with one and only grows");
        match c {
            // Quoting is lost here, as it is in Hadoop.
            '\\' => {
                last.push(pattern[at]);
                at += 1;
            }
            '{' => {
                if depth > 0 {
                    last.push(c);
                }
                depth += 1;
            }
            '}' => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
                last.push(c);
            }
            ',' if depth == 1 => choices.push(Vec::new()),
            other => last.push(other),
        }
    }
    let (prefix, suffix) = (&pattern[..open], &pattern[at..]);
    let whole = |choice: Vec<char>| ([prefix, &choice, suffix].concat(), open);
    choices.into_iter().map(whole).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn what_matches_and_what_does_not() {
        for (pattern, yes, no) in [
            ("*", &["", "a", ".b"][..], &["a\nb"][..]),
            ("?????.txt", &["hello.txt"], &["hell.txt", "helloo.txt", "hello_txt"]),
            ("[o]*", &["one", "o"], &["two", ""]),
            ("[^o]*", &["two"], &["one", ""]),
            ("[!a-c]", &["d", "^"], &["a", "b", "c", "dd"]),
            ("[]a]", &["]", "a"], &["b"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[a\\]]", &["a", "]"], &["\\"]),
            ("{one,two}.txt", &["one.txt", "two.txt"], &["three.txt", "one,two.txt"]),
            ("a{b,c{d,e}}f", &["abf", "acdf", "acef"], &["af", "acf"]),
            ("a{,b}", &["a", "ab"], &["b"]),
            ("a,b", &["a,b"], &["a"]),
            ("a}", &["a}"], &["a"]),
            ("\\*\\{", &["*{"], &["a{"]),
            ("a.b$(c)|d+^", &["a.b$(c)|d+^"], &["axb$(c)|d+^"]),
            ("*.t*t", &["a.txt", ".tt"], &["a.tx"]),
        ] {
            for name in yes {
                assert!(matches(pattern, name), "{pattern:?} should match {name:?}");
            }
            for name in no {
                assert!(!matches(pattern, name), "{pattern:?} should not match {name:?}");
            }
        }
    }

    #[test]
    fn wild_or_not() {
        for (pattern, wild) in [("a", false), ("a,b}", false), ("\\*", false), ("a*", true), ("{a}", true)] {
            assert_eq!(Pattern::parse(pattern).unwrap().is_wild(), wild, "{pattern}");
        }
    }

    #[test]
    fn left_open() {
        for (pattern, message) in [
            ("{a", "Unclosed group at pos 2"),
            ("[a", "Unclosed character class at pos 2"),
            ("[[", "Unclosed character class at pos 1"),
            ("a\\", "Missing escaped character at pos 2"),
        ] {
            let error = Pattern::parse(pattern).unwrap_err().message;
            assert!(error.contains(message), "{pattern}: {error}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = format!("{}b", "a*".repeat(100));
        assert!(!matches(&pattern, &"a".repeat(2000)));
    }

    #[test]
    fn braces_with_a_slash_are_multiplied_out() {
        for (pattern, expected) in [
            ("{a,b}", &["{a,b}"][..]),
            ("{a/b}", &["a/b"]),
            ("/}{a/b}", &["/}a/b"]),
            ("p{a/b,c/d}s", &["pa/bs", "pc/ds"]),
            ("{a/b,c/d,{e,f}}", &["a/b", "c/d", "{e,f}"]),
            ("{a/b,c/d}{e,f}", &["a/b{e,f}", "c/d{e,f}"]),
            ("{a,b}/{b,{c/d,e/f}}", &["{a,b}/b", "{a,b}/c/d", "{a,b}/e/f"]),
            ("{a,b}/{c/\\d}", &["{a,b}/c/d"]),
        ] {
            assert_eq!(expand(pattern).unwrap(), expected, "{pattern}");
        }
        assert!(expand("a\\").unwrap_err().message.contains("An escaped character does not present"));
    }

    /// The obvious matcher: tries everything, takes exponential time.
    fn naive(nodes: &[Node], name: &[char]) -> bool {
        let Some((node, rest)) = nodes.split_first() else { return name.is_empty() };
        match node {
            Node::Literal(c) => name.first() == Some(c) && naive(rest, &name[1..]),
            Node::One => name.first().is_some_and(|c| *c != '\n') && naive(rest, &name[1..]),
            Node::Any => {
                naive(rest, name) || name.first().is_some_and(|c| *c != '\n') && naive(nodes, &name[1..])
            }
            Node::Class { negated, ranges } => {
                name.first().is_some_and(|c| ranges.iter().any(|r| (r.0..=r.1).contains(c)) != *negated)
                    && naive(rest, &name[1..])
            }
            Node::Group(choices) => {
                choices.iter().any(|choice| naive(&[choice.as_slice(), rest].concat(), name))
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_obvious_matcher(
            pattern in "[ab*?\\[\\]{},\\\\^-]{0,10}",
            name in "[ab,^\\-\n]{0,8}",
        ) {
            if let Ok(pattern) = Pattern::parse(&pattern) {
                let chars: Vec<char> = name.chars().collect();
                prop_assert_eq!(pattern.matches(&name), naive(&pattern.nodes, &chars));
            }
        }

        #[test]
        fn a_quoted_name_matches_itself_alone(name in "[ab*?\\[{}]{0,8}", other in "[ab*?\\[{}]{0,8}") {
            let quoted: String = name.chars().flat_map(|c| ['\\', c]).collect();
            let pattern = Pattern::parse(&quoted).unwrap();
            prop_assert!(!pattern.is_wild() && pattern.matches(&name));
            prop_assert_eq!(pattern.matches(&other), name == other);
            prop_assert_eq!(unquote(&quoted), name);
        }

        #[test]
        fn never_panics(pattern in any::<String>(), name in any::<String>()) {
            if let Ok(pattern) = Pattern::parse(&pattern) { pattern.matches(&name); }
            let _ = expand(&pattern);
        }
    }
}
