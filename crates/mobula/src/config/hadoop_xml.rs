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
    /// There is a value: without one, or with an empty one, nothing is set.
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
    let mut open = 0_u32;
    let mut state =
        State { path, depth, property: Property::default(), text: String::new(), includes: Vec::new() };
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
                state.open(&tag, found)?;
            }
            Event::Empty(tag) => {
                state.open(&tag, found)?;
                state.close(tag.local_name().as_ref(), found)?;
            }
            Event::End(tag) => {
                open -= 1;
                state.close(tag.local_name().as_ref(), found)?;
            }
            Event::Text(text) => state.text.push_str(&text.decode()?),
            Event::CData(text) => state.text.push_str(&text.decode()?),
            Event::GeneralRef(entity) => state.text.push(character(&entity.decode()?)),
            _ => {}
        }
    }
}

/// Where in a file the reader stands (HDFS: `Configuration.Parser`).
struct State<'p> {
    path: &'p Path,
    depth: usize,
    property: Property,
    text: String,
    /// Those that it is in, of which one may be in the fallback of another.
    includes: Vec<Include>,
}

/// An `<include>`. What its `<fallback>` says counts if there is no such file.
struct Include {
    missing: Option<PathBuf>,
    in_fallback: bool,
}

impl State<'_> {
    fn open(&mut self, tag: &BytesStart<'_>, found: &mut Vec<Property>) -> Result<()> {
        self.text.clear();
        match tag.local_name().as_ref() {
            b"property" => self.property = of_attributes(tag)?,
            b"include" => {
                let file = included(tag, self.path)?;
                let is_there =
                    file.try_exists().with_context(|| format!("cannot read {}", file.display()))?;
                if is_there && self.counts() {
                    read_into(&file, self.depth + 1, found)?;
                }
                self.includes.push(Include { missing: (!is_there).then_some(file), in_fallback: false });
            }
            b"fallback" => {
                if let Some(include) = self.includes.last_mut() {
                    include.in_fallback = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self, name: &[u8], found: &mut Vec<Property>) -> Result<()> {
        let text = std::mem::take(&mut self.text);
        match name {
            b"name" if !text.is_empty() => self.property.name = text.trim().into(),
            b"value" if !text.is_empty() => {
                (self.property.value, self.property.has_value) = (text.trim().into(), true);
            }
            b"final" => self.property.last_word = text.trim() == "true",
            b"property" => {
                let property = std::mem::take(&mut self.property);
                if !property.name.is_empty() && property.has_value && self.counts() {
                    found.push(property);
                }
            }
            b"include" => {
                let ended = self.includes.pop();
                if let Some(Include { missing: Some(file), in_fallback: false }) = ended
                    && self.counts()
                {
                    bail!("{}: it includes {}, which is not there", self.path.display(), file.display());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether properties count here: not in the fallback of what was included.
    fn counts(&self) -> bool {
        !self.includes.iter().any(|include| include.in_fallback && include.missing.is_none())
    }
}

/// `<property name="..." value="..." final="..."/>`. Elements within go before.
fn of_attributes(tag: &BytesStart<'_>) -> Result<Property> {
    let mut property = Property::default();
    for attribute in tag.attributes() {
        let attribute = attribute?;
        let text = attribute.unescape_value()?;
        match attribute.key.local_name().as_ref() {
            b"name" => property.name = text.trim().into(),
            b"value" => (property.value, property.has_value) = (text.trim().into(), true),
            b"final" => property.last_word = text == "true",
            _ => {}
        }
    }
    Ok(property)
}

/// The file that an `<include>` is about.
fn included(tag: &BytesStart<'_>, path: &Path) -> Result<PathBuf> {
    let href = tag
        .try_get_attribute("href")?
        .ok_or_else(|| anyhow!("{}: <include> without href", path.display()))?;
    let href = href.unescape_value()?;
    let file = href.strip_prefix("file://").or_else(|| href.strip_prefix("file:")).unwrap_or(&href);
    Ok(path.parent().unwrap_or(Path::new(".")).join(file))
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
