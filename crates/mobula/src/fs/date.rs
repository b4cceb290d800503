//! Times as the shell prints and reads them: in the local time zone. What `stat` prints was UTC until Hadoop 3.4.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

fn instant(ms: u64) -> Timestamp {
    // Times beyond the year 9999 come from broken clocks; they show as the last one there is.
    i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

/// `2026-01-02 03:04`, in the local time zone.
pub fn local_minute(ms: u64) -> String {
    instant(ms).to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// `2026-01-02 03:04:05`, in the local time zone.
pub fn local_second(ms: u64) -> String {
    instant(ms).to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `Thu Jan 01 03:04:05 UTC 1970`, in the local time zone, as Java's `Date` shows it.
pub fn java(ms: u64) -> String {
    instant(ms).to_zoned(TimeZone::system()).strftime("%a %b %d %H:%M:%S %Z %Y").to_string()
}

/// `260102030405`, in the local time zone: how checkpoints of the trash are named.
pub fn checkpoint_name(ms: u64) -> String {
    instant(ms).to_zoned(TimeZone::system()).strftime("%y%m%d%H%M%S").to_string()
}

/// The time that a checkpoint of the trash is named after, in milliseconds; `None` if it is none.
pub fn parse_checkpoint(name: &str) -> Option<u64> {
    // A number may follow, where one second saw two of them.
    let digits = name.split('-').next()?;
    let seconds = if digits.len() == 10 { "00" } else { "" };
    parse_local("%Y%m%d%H%M%S", &format!("20{digits}{seconds}"))
}

/// What `touch -t` takes, `yyyyMMdd:HHmmss` in the local time zone, in milliseconds. As lenient as Java:
/// the 13th month is the next year's first, and what follows does not count.
pub fn parse_touch(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(':')?;
    let time = &time[..time.find(|c: char| !c.is_ascii_digit()).unwrap_or(time.len())];
    let number = |text: Option<&str>| text?.parse::<u32>().ok();
    let (year, month, day) = (number(date.get(..4))?, number(date.get(4..6))?, number(date.get(6..))?);
    let (hour, minute, second) = (number(time.get(..2))?, number(time.get(2..4))?, number(time.get(4..))?);
    let begin = DateTime::new(i16::try_from(year).ok()?, 1, 1, 0, 0, 0, 0).ok()?;
    let months = Span::new().try_months(i64::from(month) - 1).ok()?;
    let days = Span::new().try_days(i64::from(day) - 1).ok()?;
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    let rest = Span::new().try_seconds(seconds).ok()?;
    let time = begin.checked_add(months).ok()?.checked_add(days).ok()?.checked_add(rest).ok()?;
    local_ms(time)
}

fn parse_local(format: &str, text: &str) -> Option<u64> {
    local_ms(DateTime::strptime(format, text).ok()?)
}

fn local_ms(time: DateTime) -> Option<u64> {
    let time = time.to_zoned(TimeZone::system()).ok()?;
    u64::try_from(time.timestamp().as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn there_and_back() {
        let ms = parse_touch("20010102:030405").unwrap();
        assert_eq!(local_minute(ms), "2001-01-02 03:04");
        assert_eq!(checkpoint_name(ms), "010102030405");
        assert_eq!(parse_checkpoint("010102030405"), Some(ms));
        assert_eq!(parse_checkpoint("010102030405-1"), Some(ms));
        assert_eq!(parse_checkpoint("0101020304"), Some(ms - 5_000));
        assert_eq!(parse_checkpoint("Current"), None);
        assert_eq!(
            parse_touch("20001302:030405x"),
            Some(ms),
            "the 13th month is the next one, and more is too much"
        );
        assert_eq!(parse_touch("20001232:270365"), Some(ms));
        assert_eq!(parse_touch("20010102:03045"), Some(ms));
        for wrong in ["yesterday", "2020", "20010102:0304", "é:é", "20010102"] {
            assert_eq!(parse_touch(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn seconds_and_the_far_future() {
        let ms = parse_touch("20010102:030405").unwrap();
        assert_eq!(local_second(ms + 999), "2001-01-02 03:04:05");
        assert!(local_second(u64::MAX).starts_with("9999"));
    }
}
