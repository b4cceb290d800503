//! Permission bits: as `ls` shows them, as `chmod` takes them (Hadoop's `ChmodParser`), and the umask
//! of the configuration (`UmaskParser`).

/// The sticky bit.
pub const STICKY: u16 = 0o1000;

/// `rwxr-xr-x`, with `t` or `T` for the sticky bit.
pub fn symbols(mode: u16) -> String {
    let mut text: String =
        (0..9).map(|bit| if mode & (0o400 >> bit) != 0 { ['r', 'w', 'x'][bit % 3] } else { '-' }).collect();
    if mode & STICKY != 0 {
        text.pop();
        text.push(if mode & 1 != 0 { 't' } else { 'T' });
    }
    text
}

/// What a mode does with the bits that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Add,
    Remove,
    Set,
}

/// Bits for one class of users; bit 8 is `X`: execute, where it makes sense already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    action: Action,
    bits: u16,
}

const NO_CHANGE: Change = Change { action: Action::Add, bits: 0 };
const X_IF_SENSIBLE: u16 = 8;

/// A parsed mode of `chmod`: octal, or like `u+x,g-w,o=r`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    user: Change,
    group: Change,
    others: Change,
    sticky: Change,
}

impl Mode {
    /// Reads a mode; `None` if it is none.
    pub fn parse(text: &str) -> Option<Mode> {
        Mode::symbolic(text).or_else(|| Mode::octal(text))
    }

    fn octal(text: &str) -> Option<Mode> {
        let digits = text.trim();
        let digits = digits.strip_prefix('+').unwrap_or(digits);
        let all_octal = digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        let bits = match digits.len() {
            3 if all_octal => u16::from_str_radix(digits, 8).ok()?,
            4 if all_octal && digits.as_bytes()[0] <= b'1' => u16::from_str_radix(digits, 8).ok()?,
            _ => return None,
        };
        let set = |bits| Change { action: Action::Set, bits };
        Some(Mode {
            user: set(bits >> 6 & 7),
            group: set(bits >> 3 & 7),
            others: set(bits & 7),
            sticky: set(bits >> 9),
        })
    }

    fn symbolic(text: &str) -> Option<Mode> {
        Mode::of_clauses(text, "rwxXt").filter(|(_, some)| *some).map(|(mode, _)| mode)
    }

    /// Reads clauses of these letters, and whether each has one.
    fn of_clauses(text: &str, letters: &str) -> Option<(Mode, bool)> {
        let mut some = true;
        let mut mode = Mode { user: NO_CHANGE, group: NO_CHANGE, others: NO_CHANGE, sticky: NO_CHANGE };
        let mut rest = text.trim_start();
        loop {
            let (clause, after) = Clause::parse(rest, letters)?;
            clause.add_to(&mut mode);
            some &= !clause.bits.is_empty();
            let next = after.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            if next.is_empty() {
                return Some((mode, some));
            }
            if !after[..after.len() - next.len()].contains(',') {
                return None;
            }
            rest = next;
        }
    }

    /// The bits of a file or directory that had `existing`.
    pub fn apply(&self, existing: u16, directory: bool) -> u16 {
        let executable = directory || existing & 0o111 != 0;
        self.sticky.apply(existing >> 9 & 1, false) << 9
            | self.user.apply(existing >> 6 & 7, executable) << 6
            | self.group.apply(existing >> 3 & 7, executable) << 3
            | self.others.apply(existing & 7, executable)
    }
}

impl Change {
    fn apply(self, existing: u16, executable: bool) -> u16 {
        let conditional = self.bits & X_IF_SENSIBLE != 0;
        let bits = if conditional { self.bits & 7 | 1 } else { self.bits };
        let mut result = match self.action {
            Action::Add => existing | bits,
            Action::Remove => existing & !bits,
            Action::Set => bits,
        };
        if conditional && !executable && existing & 1 == 0 {
            result &= !1;
        }
        result
    }
}

/// One clause: who, what to do, which bits.
struct Clause<'a> {
    who: &'a str,
    action: Action,
    bits: &'a str,
}

impl<'a> Clause<'a> {
    /// The clause that `text` begins with, and what follows it.
    fn parse(text: &'a str, letters: &str) -> Option<(Clause<'a>, &'a str)> {
        let span = |text: &str, of: &str| text.find(|c| !of.contains(c)).unwrap_or(text.len());
        let (who, rest) = text.split_at(span(text, "ugoa"));
        let (signs, rest) = rest.split_at(span(rest, "+=-"));
        let (bits, rest) = rest.split_at(span(rest, letters));
        let action = match signs.chars().next_back()? {
            '+' => Action::Add,
            '-' => Action::Remove,
            _ => Action::Set,
        };
        Some((Clause { who, action, bits }, rest))
    }

    fn add_to(&self, mode: &mut Mode) {
        let bits = self.bits.chars().fold(0, |bits, letter| {
            bits | match letter {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                'X' => X_IF_SENSIBLE,
                _ => 0,
            }
        });
        let change = Change { action: self.action, bits };
        let everyone = !self.who.contains(['u', 'g', 'o']);
        if everyone || self.who.contains('u') {
            mode.user = change;
        }
        if everyone || self.who.contains('g') {
            mode.group = change;
        }
        if everyone || self.who.contains('o') {
            mode.others = change;
            mode.sticky = Change { action: self.action, bits: u16::from(self.bits.contains('t')) };
        }
    }
}

/// A umask of the configuration (`fs.permissions.umask-mode`): octal like `022`, always of three digits, or
/// symbolic, which names what is *kept*, and may keep nothing: `u=rwx,g=rx,o=`.
pub fn umask(text: &str) -> Option<u16> {
    let digits = text.trim();
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    if digits.len() >= 3 && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) {
        return u16::from_str_radix(digits, 8).ok().filter(|bits| *bits <= 0o777);
    }
    let (kept, _) = Mode::of_clauses(text, "rwx")?;
    Some(!kept.apply(0, false) & 0o777)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shown_as_ls_does() {
        assert_eq!(symbols(0o755), "rwxr-xr-x");
        assert_eq!(symbols(0o640), "rw-r-----");
        assert_eq!(symbols(0o1777), "rwxrwxrwt");
        assert_eq!(symbols(0o1776), "rwxrwxrwT");
    }

    #[test]
    fn chmod_octal_and_symbolic() {
        let apply = |text: &str, existing| Mode::parse(text).unwrap().apply(existing, false);
        assert_eq!(apply("640", 0o644), 0o640);
        assert_eq!(apply("1777", 0o755), 0o1777);
        assert_eq!(apply("0755", 0o1777), 0o755);
        assert_eq!(apply("u+x,g-r,o+r", 0o640), 0o704);
        assert_eq!(apply("+t", 0o755), 0o1755);
        assert_eq!(apply("a+r,g-w,+rwx,o=r", 0o000), 0o774);
        assert_eq!(apply("u+x", 0o1644), 0o1744);
        assert_eq!(apply("o=r", 0o1644), 0o644);
        assert_eq!(apply("a+X", 0o644), 0o644);
        assert_eq!(apply("a+X", 0o744), 0o755);
        assert_eq!(Mode::parse("a+X").unwrap().apply(0o644, true), 0o755);
        assert_eq!(apply(" 755 ", 0), 0o755);
    }

    #[test]
    fn what_is_no_mode() {
        for text in ["", "9", "77", "2777", "u", "u+", "u+q", "u+x g-r", "u+x,", "x+r", "12345"] {
            // A trailing comma is fine for Hadoop, too.
            assert_eq!(Mode::parse(text).is_some(), text == "u+x,", "{text:?}");
        }
    }

    #[test]
    fn umasks() {
        assert_eq!(umask("022"), Some(0o022));
        assert_eq!(umask(" 0077 "), Some(0o077));
        assert_eq!(umask("u=rwx,g=rx,o="), Some(0o027));
        assert_eq!(umask("u=rwx,g=r,o=r"), Some(0o033));
        assert_eq!(umask("+rx, g="), Some(0o272));
        // The last clause counts alone.
        assert_eq!(umask("a=rwx,g-w"), Some(0o070));
        for wrong in ["abc", "8", "77", "1077", "", "u=rwX", "+t", "99999999999999999999"] {
            assert_eq!(umask(wrong), None, "{wrong}");
        }
    }
}
