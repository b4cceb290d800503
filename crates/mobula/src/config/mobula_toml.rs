//! `mobula.toml`: sections and keys of [`super::keys`], nothing else.

use anyhow::{Result, anyhow, bail};
use toml::de::{DeTable, DeValue};

use super::keys;

/// Hadoop's key, the value as text, and the line, for each setting in `text`.
pub fn parse(text: &str, file: &str) -> Result<Vec<(String, String, usize)>> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        anyhow!("{file}:{line}: {}", error.message())
    })?;
    let mut found = Vec::new();
    for (section, value) in table.get_ref() {
        let line = line_of(text, section.span().start);
        let DeValue::Table(entries) = value.get_ref() else {
            bail!("{file}:{line}: '{}' must be a section such as [client]", section.get_ref());
        };
        for (name, value) in entries {
            let line = line_of(text, name.span().start);
            if let (PROXY_USER, DeValue::Table(rules)) = (&**section.get_ref(), value.get_ref()) {
                found.extend(proxy_user(text, file, name.get_ref(), rules)?);
                continue;
            }
            let full = format!("{}.{}", section.get_ref(), name.get_ref());
            let Some(key) = keys::by_name(&full) else {
                bail!("{file}:{line}: unknown key '{full}'; did you mean '{}'?", keys::nearest(&full));
            };
            let value = text_of(value.get_ref()).ok_or_else(|| {
                anyhow!("{file}:{line}: '{full}' must be a number, a text, true, false or a list of texts")
            })?;
            found.push((key.hadoop.to_owned(), value, line));
        }
    }
    Ok(found)
}

/// The section of those who may speak in others' names: one table each.
const PROXY_USER: &str = "proxyuser";

/// `[proxyuser.NAME]`, as `hadoop.proxyuser.NAME.*`.
fn proxy_user(
    text: &str,
    file: &str,
    name: &str,
    rules: &DeTable<'_>,
) -> Result<Vec<(String, String, usize)>> {
    let mut found = Vec::new();
    for (rule, value) in rules {
        let line = line_of(text, rule.span().start);
        let (full, rule) = (format!("proxyuser.{name}.{}", rule.get_ref()), &**rule.get_ref());
        if !["hosts", "groups", "users"].contains(&rule) {
            bail!("{file}:{line}: unknown key '{full}'; it must be hosts, groups or users");
        }
        let value = text_of(value.get_ref())
            .ok_or_else(|| anyhow!("{file}:{line}: '{full}' must be a text or a list of texts"))?;
        found.push((format!("hadoop.{full}"), value, line));
    }
    Ok(found)
}

fn text_of(value: &DeValue<'_>) -> Option<String> {
    Some(match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(|item| text_of(item.get_ref())).collect();
            items?.join(",")
        }
        _ => return None,
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
