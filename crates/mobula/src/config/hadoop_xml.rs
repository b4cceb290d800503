//! Hadoop's configuration files: properties, `final`, XInclude (HDFS: `Configuration`).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// One `<property>`.
#[derive(Clone, Debug, Default)]
pub struct Property {
    /// Key.
    pub name: String,
    /// Value, `${...}` not yet filled in.
    pub value: String,
    /// There is a `<value>`: without one nothing is set.
    has_value: bool,
    /// `<final>true</final>`.
    pub last_word: bool,
}

/// Files that include each other deeper than this include themselves.
const INCLUDE_DEPTH_MAX: usize = 16;

/// The properties of a file and of those that it includes, in order.
pub fn read(path: &Path) -> Result<Vec<Property>> {
    let mut found = Vec::new();
    read_into(path, 0, &mut found)?;
    Ok(found)
}

fn read_into(path: &Path, depth: usize, found: &mut Vec<Property>) -> Result<()> {
    if depth > INCLUDE_DEPTH_MAX {
        bail!("{}: included more than {INCLUDE_DEPTH_MAX} files deep", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut reader = Reader::from_str(&text);
    reader.config_mut().trim_text(true);
    let (mut state, mut open) = (State::default(), 0_u32);
    loop {
        let event = reader
            .read_event()
            .map_err(|error| anyhow!("{} at byte {}: {error}", path.display(), reader.error_position()))?;
        match event {
            Event::Eof if open > 0 => {
                bail!("{} ends in the middle: {open} elements are not closed", path.display())
            }
            Event::Eof => return Ok(()),
            Event::Start(tag) => {
                open += 1;
                if let Some(included) = state.open(&tag, path)? {
                    read_into(&included, depth + 1, found)?;
                }
            }
            Event::Empty(tag) => {
                if let Some(included) = include_of(&tag, path)? {
                    read_into(&included, depth + 1, found)?;
                }
            }
            Event::End(tag) => {
                open -= 1;
                state.close(tag.local_name().as_ref(), found);
            }
            Event::Text(text) => state.text.push_str(&text.decode()?),
            Event::CData(text) => state.text.push_str(&text.decode()?),
            Event::GeneralRef(entity) => state.text.push(character(&entity.decode()?)),
            _ => {}
        }
    }
}

/// Where in a `<property>` the reader stands.
#[derive(Default)]
struct State {
    property: Property,
    text: String,
}

impl State {
    /// Returns a file to include, if that is what the tag asks for.
    fn open(&mut self, tag: &BytesStart<'_>, path: &Path) -> Result<Option<PathBuf>> {
        self.text.clear();
        if tag.local_name().as_ref() == b"property" {
            self.property = Property::default();
        }
        include_of(tag, path)
    }

    fn close(&mut self, name: &[u8], found: &mut Vec<Property>) {
        let text = std::mem::take(&mut self.text);
        match name {
            b"name" => self.property.name = text.trim().into(),
            b"value" => (self.property.value, self.property.has_value) = (text.trim().into(), true),
            b"final" => self.property.last_word = text.trim() == "true",
            b"property" if !self.property.name.is_empty() && self.property.has_value => {
                found.push(std::mem::take(&mut self.property));
            }
            _ => {}
        }
    }
}

fn include_of(tag: &BytesStart<'_>, path: &Path) -> Result<Option<PathBuf>> {
    if tag.local_name().as_ref() != b"include" {
        return Ok(None);
    }
    let href = tag
        .try_get_attribute("href")?
        .ok_or_else(|| anyhow!("{}: <include> without href", path.display()))?;
    let href = href.unescape_value()?;
    let folder = path.parent().unwrap_or(Path::new("."));
    Ok(Some(folder.join(href.trim_start_matches("file://"))))
}

/// XML's five named entities and numbered ones; anything else is kept visible as `?`.
fn character(entity: &str) -> char {
    match entity {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => entity
            .strip_prefix('#')
            .and_then(|number| match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok(),
                None => number.parse().ok(),
            })
            .and_then(char::from_u32)
            .unwrap_or('?'),
    }
}
