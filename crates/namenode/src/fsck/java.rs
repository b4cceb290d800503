//! Numbers and addresses as Java prints them.

use std::net::IpAddr;

/// Appends to a text.
macro_rules! put {
    ($out:expr, $($words:tt)*) => {{
        use std::fmt::Write as _;
        // A String takes all.
        let _ = write!($out, $($words)*);
    }};
}
pub(crate) use put;

/// `Float.toString`: at least one digit after the point, and an exponent for very small and very large ones.
pub fn float(value: f32) -> String {
    if value == 0.0 || (1e-3..1e7).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

/// What part of a whole is, in percent, as Java's floats have it.
#[allow(clippy::cast_precision_loss)] // as Java does
pub fn percent(part: u64, whole: u64) -> String {
    float((part * 100) as f32 / whole as f32)
}

/// `InetAddress.toString` of an address whose name nobody looked up.
pub fn address(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("/{ip}"),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => format!("/{ip}"),
            None => {
                let groups = ip.segments().map(|group| format!("{group:x}"));
                format!("/{}", groups.join(":"))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_java_prints_them() {
        let cases = [
            (0.0, "0.0"),
            (100.0, "100.0"),
            (100.0 / 3.0, "33.333332"),
            (0.001, "0.001"),
            (0.0001, "1.0E-4"),
            (0.000_123, "1.23E-4"),
            (1e7, "1.0E7"),
            (12_345_678.0, "1.2345678E7"),
        ];
        for (value, text) in cases {
            assert_eq!(float(value), text);
        }
        assert_eq!(percent(2, 3), "66.666664");
    }

    #[test]
    fn addresses_as_java_prints_them() {
        assert_eq!(address([127, 0, 0, 1].into()), "/127.0.0.1");
        assert_eq!(address(std::net::Ipv6Addr::LOCALHOST.into()), "/0:0:0:0:0:0:0:1");
        assert_eq!(address(std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()), "/127.0.0.1");
    }
}
