//! Options and how many arguments may follow them, as Hadoop's `CommandFormat` takes them: options
//! stand before the arguments, each on its own, and `--` ends them.

use std::collections::{BTreeMap, BTreeSet};

use super::failure::{Failure, Outcome};

/// What a verb takes.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Fewest arguments.
    pub least: usize,
    /// Most arguments.
    pub most: usize,
    /// Options without a value, without their dash.
    pub flags: &'static [&'static str],
    /// Options that a value may follow.
    pub values: &'static [&'static str],
    /// Whether unknown options stay among the arguments (`chmod g-w`, `find -name`).
    pub keep_unknown: bool,
}

/// No bound on the arguments.
pub const MANY: usize = usize::MAX;

/// The options that were given.
#[derive(Clone, Debug, Default)]
pub struct Given {
    flags: BTreeSet<&'static str>,
    values: BTreeMap<&'static str, String>,
}

impl Given {
    /// Whether the option was given.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    /// The value of an option; empty if it was given without one.
    pub fn value(&self, option: &str) -> Option<&str> {
        self.values.get(option).map(String::as_str)
    }

    /// The options without a value that were given.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        self.flags.iter().copied()
    }
}

impl Format {
    /// From `least` to `most` arguments, and these options.
    pub const fn new(least: usize, most: usize, flags: &'static [&'static str]) -> Format {
        Format { least, most, flags, values: &[], keep_unknown: false }
    }

    /// With options that take a value.
    pub const fn with_values(mut self, values: &'static [&'static str]) -> Format {
        self.values = values;
        self
    }

    /// With unknown options left among the arguments.
    pub const fn keeping_unknown(mut self) -> Format {
        self.keep_unknown = true;
        self
    }

    /// Takes the options out of `args`.
    ///
    /// # Errors
    /// An unknown option, too few or too many arguments, in Hadoop's words.
    pub fn parse(&self, args: &mut Vec<String>) -> Outcome<Given> {
        let mut given = Given::default();
        let mut at = 0;
        while let Some(arg) = args.get(at) {
            if !arg.starts_with('-') || arg == "-" {
                break;
            }
            if arg == "--" {
                args.remove(at);
                break;
            }
            let option = &arg[1..];
            if let Some(flag) = self.flags.iter().find(|flag| **flag == option) {
                given.flags.insert(flag);
                args.remove(at);
            } else if let Some(option) = self.values.iter().find(|value| **value == option) {
                args.remove(at);
                given.values.insert(option, self.take_value(args, at));
            } else if self.keep_unknown {
                at += 1;
            } else {
                return Err(Failure::usage(format!("Illegal option {arg}")));
            }
        }
        self.check_count(args.len())?;
        Ok(given)
    }

    /// The word after an option is its value, if enough arguments stay and it is no option itself.
    fn take_value(&self, args: &mut Vec<String>, at: usize) -> String {
        match args.get(at) {
            Some(next) if args.len() > self.least && !next.starts_with('-') => args.remove(at),
            _ => String::new(),
        }
    }

    fn check_count(&self, count: usize) -> Outcome<()> {
        if count < self.least {
            return Err(Failure::usage(format!(
                "Not enough arguments: expected {} but got {count}",
                self.least
            )));
        }
        if count > self.most {
            return Err(Failure::usage(format!(
                "Too many arguments: expected {} but got {count}",
                self.most
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').filter(|word| !word.is_empty()).map(String::from).collect()
    }

    #[test]
    fn options_come_first_and_each_alone() {
        let format = Format::new(0, MANY, &["R", "h"]);
        let mut args = words("-R -h /a -R");
        let given = format.parse(&mut args).unwrap();
        assert!(given.has("R") && given.has("h") && !given.has("t"));
        assert_eq!(args, words("/a -R"));
        let error = format.parse(&mut words("-Z /a")).unwrap_err();
        assert_eq!(error, Failure::usage("Illegal option -Z"));
        assert_eq!(format.parse(&mut words("-Rh")).unwrap_err().message, "Illegal option -Rh");
    }

    #[test]
    fn two_dashes_end_them_and_one_is_an_argument() {
        let format = Format::new(1, MANY, &["f"]);
        let mut args = words("-f -- -f");
        assert!(format.parse(&mut args).unwrap().has("f"));
        assert_eq!(args, words("-f"));
        let mut args = words("- /a");
        format.parse(&mut args).unwrap();
        assert_eq!(args, words("- /a"));
    }

    #[test]
    fn too_few_and_too_many() {
        let format = Format::new(1, 1, &[]);
        let message = |line| format.parse(&mut words(line)).unwrap_err().message;
        assert_eq!(message(""), "Not enough arguments: expected 1 but got 0");
        assert_eq!(message("a b"), "Too many arguments: expected 1 but got 2");
    }

    #[test]
    fn a_value_is_taken_only_if_enough_arguments_stay() {
        let format = Format::new(1, MANY, &["q"]).with_values(&["t"]);
        let mut args = words("-t disk /a");
        assert_eq!(format.parse(&mut args).unwrap().value("t"), Some("disk"));
        assert_eq!(args, words("/a"));
        let mut args = words("-t /a");
        assert_eq!(format.parse(&mut args).unwrap().value("t"), Some(""));
        assert_eq!(args, words("/a"));
        assert_eq!(format.parse(&mut words("/a")).unwrap().value("t"), None);
    }

    #[test]
    fn unknown_ones_stay_where_asked() {
        let format = Format::new(2, MANY, &["R"]).keeping_unknown();
        let mut args = words("-R -w /a");
        assert!(format.parse(&mut args).unwrap().has("R"));
        assert_eq!(args, words("-w /a"));
    }
}
