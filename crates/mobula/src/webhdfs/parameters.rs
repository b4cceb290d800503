//! Parameters of WebHDFS with HDFS's defaults, and its words for those that are none.

use crate::http::query::Parameters;

/// A parameter that is none: the words of the IllegalArgumentException.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub String);

/// Parameters by name, whose case does not matter.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'p>(pub &'p Parameters);

impl<'p> Asked<'p> {
    /// The text of a parameter; one that is empty or `null` is not there.
    pub fn text(self, name: &str) -> Option<&'p str> {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value).filter(|value| !value.is_empty() && *value != "null")
    }

    /// One that the operation needs.
    pub fn required(self, operation: &str, name: &str) -> Result<&'p str, Invalid> {
        let missing = || Invalid(format!("Required param {name} for op: {operation} is null or empty"));
        self.text(name).ok_or_else(missing)
    }

    /// `true` or `false`; `false` if it is not there.
    pub fn truth(self, name: &str) -> Result<bool, Invalid> {
        match self.text(name) {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(invalid(name, &format!("Failed to parse \"{text}\" to Boolean."))),
        }
    }

    /// Permission bits in octal.
    pub fn mode(self, name: &str, default: u16) -> Result<u16, Invalid> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let mode = u16::from_str_radix(text, 8)
            .map_err(|_| invalid(name, &format!("Failed to parse \"{text}\" as a radix-8 short integer.")))?;
        if mode > MODE_MAX {
            let words = format!("Invalid parameter range: {name} = {mode:o} > {MODE_MAX:o}");
            return Err(invalid(name, &words));
        }
        Ok(mode)
    }

    /// A number of replicas.
    pub fn replication(self, default: u16) -> Result<u16, Invalid> {
        let Some(text) = self.text("replication") else { return Ok(default) };
        let words = || format!("Failed to parse \"{text}\" as a radix-10 short integer.");
        let count: i16 = text.parse().map_err(|_| invalid("replication", &words()))?;
        match u16::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(invalid("replication", &format!("Invalid parameter range: replication = {count} < 1"))),
        }
    }

    /// A time in milliseconds; negative ones mean that it is not to change.
    pub fn time(self, name: &str) -> Result<Option<u64>, Invalid> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let words = || format!("Failed to parse \"{text}\" as a radix-10 long integer.");
        let time: i64 = text.parse().map_err(|_| invalid(name, &words()))?;
        if time < -1 {
            return Err(invalid(name, &format!("Invalid parameter range: {name} = {time} < -1")));
        }
        Ok(u64::try_from(time).ok())
    }

    /// `r-x` and such as bits.
    pub fn access(self, operation: &str) -> Result<u8, Invalid> {
        let text = self.required(operation, "fsaction")?;
        let fits = text.len() == 3 && text.bytes().zip(*b"rwx").all(|(is, may)| is == may || is == b'-');
        if !fits {
            let words = format!("Invalid value: \"{text}\" does not belong to the domain [r-][w-][x-]");
            return Err(invalid("fsaction", &words));
        }
        Ok(text.bytes().fold(0, |bits, letter| bits << 1 | u8::from(letter != b'-')))
    }
}

/// Largest permission.
const MODE_MAX: u16 = 0o1777;

/// A value of a parameter that is none, and why.
pub fn invalid(name: &str, why: &str) -> Invalid {
    Invalid(format!("Invalid value for webhdfs parameter \"{name}\": {why}"))
}

/// Whether a user may have that name (`dfs.webhdfs.user.provider.user.pattern`).
pub fn check_user(name: &str) -> Result<(), Invalid> {
    let body = name.strip_suffix('$').unwrap_or(name);
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let later = |byte: u8| first(byte) || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    let mut bytes = body.bytes();
    if bytes.next().is_some_and(first) && bytes.all(later) {
        return Ok(());
    }
    let words =
        format!("Invalid value: \"{name}\" does not belong to the domain ^[A-Za-z_][A-Za-z0-9._-]*[$]?$");
    Err(invalid("user.name", &words))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_and_what_is_none() {
        let parameters = Parameters::parse(
            "Recursive=TRUE&permission=1777&replication=3&modificationtime=-1&accesstime=5&fsaction=r-x&empty=&n=null",
        );
        let parameters = parameters.unwrap();
        let asked = Asked(&parameters);
        assert_eq!(asked.truth("recursive"), Ok(true));
        assert_eq!(asked.truth("overwrite"), Ok(false));
        assert_eq!(asked.mode("permission", 0), Ok(0o1777));
        assert_eq!((asked.replication(1), asked.access("X")), (Ok(3), Ok(5)));
        assert_eq!((asked.time("modificationtime"), asked.time("accesstime")), (Ok(None), Ok(Some(5))));
        assert_eq!((asked.text("empty"), asked.text("n")), (None, None));
        let words = "Required param destination for op: RENAME is null or empty";
        assert_eq!(asked.required("RENAME", "destination"), Err(Invalid(words.into())));

        let parameters =
            Parameters::parse("recursive=1&permission=2000&replication=0&accesstime=x&fsaction=rwz").unwrap();
        let asked = Asked(&parameters);
        assert!(asked.truth("recursive").is_err());
        assert!(asked.mode("permission", 0).unwrap_err().0.ends_with("permission = 2000 > 1777"));
        assert!(
            asked.replication(1).is_err() && asked.time("accesstime").is_err() && asked.access("X").is_err()
        );
    }

    #[test]
    fn names_of_users() {
        for good in ["me", "_x", "a.b-c", "host$"] {
            assert_eq!(check_user(good), Ok(()), "{good}");
        }
        for bad in ["", "1a", "a b", "a/b", "$", "a$b"] {
            assert!(check_user(bad).is_err(), "{bad}");
        }
    }
}
