//! Sizes and times as Hadoop writes them.

/// Bytes: a number, or one with a binary prefix as `128m`, `1g` (HDFS: `TraditionalBinaryPrefix`).
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let last = text.chars().last()?;
    if last.is_ascii_digit() {
        return text.parse().ok();
    }
    let shift = match last.to_ascii_lowercase() {
        'k' => 10,
        'm' => 20,
        'g' => 30,
        't' => 40,
        'p' => 50,
        'e' => 60,
        _ => return None,
    };
    let number: u64 = text[..text.len() - last.len_utf8()].trim().parse().ok()?;
    number.checked_mul(1 << shift)
}

/// Milliseconds: a number in `unit_ms`, or one with a unit as `100ms`, `30s`, `5m`, `2h`, `1d`
/// (HDFS: `Configuration.getTimeDuration`).
pub fn parse_millis(text: &str, unit_ms: u64) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "" => unit_ms,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("134217728"), Some(128 << 20));
        assert_eq!(parse_size("128m"), Some(128 << 20));
        assert_eq!(parse_size(" 1G "), Some(1 << 30));
        assert_eq!(parse_size("0"), Some(0));
        for bad in ["", "m", "12q", "-1", "99999999999e", "1.5g"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_millis("3", 1_000), Some(3_000));
        assert_eq!(parse_millis("100ms", 1_000), Some(100));
        assert_eq!(parse_millis("5m", 1), Some(300_000));
        for bad in ["", "s", "3 weeks", "-1s"] {
            assert_eq!(parse_millis(bad, 1), None, "{bad}");
        }
    }
}
