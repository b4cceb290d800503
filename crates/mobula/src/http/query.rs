//! Percent-encoded text and the parameters of a request, as hostile as they come.

/// Parameters of a request at most: HDFS's calls have a dozen.
const PARAMETERS_MAX: usize = 64;

/// Why a target cannot be read; always the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// A `%` without two hexadecimal digits behind it.
    #[error("a % without two hexadecimal digits behind it")]
    Percent,
    /// What it decodes to is no text.
    #[error("what is no UTF-8 when it is decoded")]
    Text,
    /// Too many parameters.
    #[error("more than {PARAMETERS_MAX} parameters")]
    Many,
}

/// What stands for a blank, besides `%20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blank {
    /// In parameters: `+`.
    Plus,
    /// In paths: nothing.
    None,
}

/// Decoded parameters in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads what is behind the `?` of a target.
    ///
    /// # Errors
    /// [`BadTarget`].
    pub fn parse(query: &str) -> Result<Parameters, BadTarget> {
        let mut parameters = Vec::new();
        for text in query.split('&').filter(|text| !text.is_empty()) {
            if parameters.len() == PARAMETERS_MAX {
                return Err(BadTarget::Many);
            }
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            parameters.push((decode(name, Blank::Plus)?, decode(value, Blank::Plus)?));
        }
        Ok(Parameters(parameters))
    }

    /// The first one of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Decodes percent-encoded text.
///
/// # Errors
/// [`BadTarget`].
pub fn decode(text: &str, blank: Blank) -> Result<String, BadTarget> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit().ok_or(BadTarget::Percent)?, digit().ok_or(BadTarget::Percent)?);
                (high << 4 | low) as u8
            }
            b'+' if blank == Blank::Plus => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| BadTarget::Text)
}

/// Encodes text so that it means itself in a path or a parameter.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_dfsck_sends() {
        let parameters =
            Parameters::parse("ugi=me&files=1&blockId=blk_1+blk_2+&path=%2Fa%20b%C3%A4").unwrap();
        assert_eq!(parameters.get("blockId"), Some("blk_1 blk_2 "));
        assert_eq!(parameters.get("path"), Some("/a bä"));
        assert_eq!(parameters.get("delete"), None);
        assert_eq!(Parameters::parse("a&&b=&a=2").unwrap().get("a"), Some(""));
    }

    #[test]
    fn what_nobody_should_send() {
        for (text, why) in [
            ("a=%", BadTarget::Percent),
            ("a=%4", BadTarget::Percent),
            ("a=%+1", BadTarget::Percent),
            ("%zz=1", BadTarget::Percent),
            ("a=%FF", BadTarget::Text),
            (&*"a&".repeat(PARAMETERS_MAX + 1), BadTarget::Many),
        ] {
            assert_eq!(Parameters::parse(text), Err(why), "{text}");
        }
        assert_eq!(decode("a+b%2B", Blank::None).unwrap(), "a+b+");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~]{0,80}") {
            if let Ok(parameters) = Parameters::parse(&text) {
                // Decoding makes nothing longer.
                let length: usize = parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
                prop_assert!(length <= text.len());
            }
        }

        #[test]
        fn what_is_encoded_comes_back(names in prop::collection::vec((".{0,20}", ".{0,20}"), 0..8)) {
            let query: Vec<String> =
                names.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
            let parsed = Parameters::parse(&query.join("&")).unwrap();
            prop_assert_eq!(parsed.0, names);
        }

        #[test]
        fn no_bad_percent_is_taken(before in "[a-z]{0,8}", bad in "%([g-z]|[0-9][g-z]|[0-9]?)", more in "([g-z][a-z]{0,8})?") {
            prop_assert_eq!(decode(&format!("{before}{bad}{more}"), Blank::Plus), Err(BadTarget::Percent));
        }
    }
}
