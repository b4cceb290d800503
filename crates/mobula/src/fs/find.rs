//! `find`.

use super::failure::{Failure, Outcome};
use super::glob::Pattern;
use super::item::Item;
use super::options::{Format, MANY};
use super::shell::Shell;
use super::walk::Walk;

/// What is asked of each path; all of them in order, until one says no.
enum Test {
    Name(Pattern),
    NameAnyCase(Pattern),
    Print,
    PrintZero,
}

/// Prints the paths of trees that pass the tests.
pub async fn find(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    Format::new(1, MANY, &["L", "H"]).keeping_unknown().parse(&mut args)?;
    let paths_end = args.iter().position(|arg| arg.starts_with('-')).unwrap_or(args.len());
    let words = args.split_off(paths_end);
    if args.is_empty() {
        args.push(".".into());
    }
    let tests = parse(words)?;
    let items = shell.expand_all(&args).await?;
    let mut walk = Walk::over(items);
    while let Some((_, item)) = walk.next() {
        if !shell.is_there(&item) {
            continue;
        }
        apply(shell, &tests, &item)?;
        if item.is_directory() {
            let children = shell.children_of(&item).await;
            walk.descend(children);
        }
    }
    Ok(())
}

/// Reads tests; without an action among them, printing is the last one. The only operator is "and",
/// so parentheses change nothing; one that closes none ends the tests, as with Java's shell.
fn parse(words: Vec<String>) -> Outcome<Vec<Test>> {
    let mut tests = Vec::new();
    let mut depth = 0_usize;
    // An operator that waits for what comes after it.
    let mut pending = None;
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let test = match word.as_str() {
            "-name" => Test::Name(pattern(&value(&word, words.next())?)?),
            "-iname" => Test::NameAnyCase(pattern(&value(&word, words.next())?.to_lowercase())?),
            "-print" => Test::Print,
            "-print0" => Test::PrintZero,
            "-a" | "-and" if tests.is_empty() || pending.is_some() => return Err(one_sided(&word)),
            "-a" | "-and" => {
                pending = Some(word);
                continue;
            }
            "(" => {
                depth += 1;
                continue;
            }
            ")" if depth > 0 => {
                depth -= 1;
                continue;
            }
            ")" => break,
            _ => return Err(Failure::other(format!("Unexpected argument: {word}"))),
        };
        tests.push(test);
        pending = None;
    }
    if let Some(operator) = pending {
        return Err(one_sided(&operator));
    }
    if !tests.iter().any(|test| matches!(test, Test::Print | Test::PrintZero)) {
        tests.push(Test::Print);
    }
    Ok(tests)
}

fn value(option: &str, word: Option<String>) -> Outcome<String> {
    word.ok_or_else(|| Failure::usage(format!("{option} needs a pattern")))
}

fn pattern(text: &str) -> Outcome<Pattern> {
    Pattern::parse(text).map_err(|failure| Failure::usage(failure.message))
}

fn one_sided(operator: &str) -> Failure {
    Failure::usage(format!("{operator} needs a test before it and one after it"))
}

fn apply(shell: &mut Shell, tests: &[Test], item: &Item) -> Outcome<()> {
    for test in tests {
        let passed = match test {
            Test::Name(pattern) => pattern.matches(item.name()),
            Test::NameAnyCase(pattern) => pattern.matches(&item.name().to_lowercase()),
            Test::Print => shell.line(&item.text).map(|()| true)?,
            Test::PrintZero => shell.print_bytes(format!("{}\0", item.text).as_bytes()).map(|()| true)?,
        };
        if !passed {
            break;
        }
    }
    Ok(())
}
