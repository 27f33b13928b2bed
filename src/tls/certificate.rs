//! What is read from a certificate itself: when it expires, and for which hosts it is. X.509 in DER, RFC 5280.
//!
//! Promises: any bytes give an answer or none. Checks nothing: that is done by whoever trusts it.

/// Tags of DER that are met on the way.
const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
/// id-ce-subjectAltName, 2.5.29.17.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// Values one after another.
struct Values<'a>(&'a [u8]);

impl<'a> Iterator for Values<'a> {
    type Item = (u8, &'a [u8]);

    /// The next one's tag and content. Ends where the bytes are no DER.
    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let (digits, after) =
                rest.split_at_checked(usize::from(first & 0x7f)).filter(|(digits, _)| digits.len() <= 4)?;
            length = digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit));
            rest = after;
        }
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, content))
    }
}

/// What a value of this tag at the beginning has in it.
fn inside(bytes: &[u8], tag: u8) -> Option<Values<'_>> {
    Values(bytes).next().filter(|(found, _)| *found == tag).map(|(_, content)| Values(content))
}

/// The fields of a certificate from its serial number on.
fn fields(certificate: &[u8]) -> Option<Values<'_>> {
    let mut fields = inside(inside(certificate, SEQUENCE)?.0, SEQUENCE)?;
    if fields.0.first() == Some(&VERSION) {
        fields.next()?;
    }
    Some(fields)
}

/// When it expires, in seconds since 1970.
pub(super) fn expires(certificate: &[u8]) -> Option<u64> {
    // Serial number, algorithm, issuer, validity.
    let (tag, validity) = fields(certificate)?.nth(3)?;
    let (kind, time) = Values(validity).nth(1).filter(|_| tag == SEQUENCE)?;
    seconds(kind, time)
}

/// The hosts that it is for, as DNS calls them; the first label may be `*`.
pub(super) fn names(certificate: &[u8]) -> Vec<String> {
    let found = || {
        let (_, extensions) = fields(certificate)?.find(|(tag, _)| *tag == EXTENSIONS)?;
        let named =
            |(_, extension): &(u8, &[u8])| Values(extension).next().is_some_and(|(_, id)| id == ALTERNATIVE_NAMES);
        let (_, extension) = inside(extensions, SEQUENCE)?.find(named)?;
        let (_, value) = Values(extension).find(|(tag, _)| *tag == OCTETS)?;
        let names = inside(value, SEQUENCE)?.filter(|(tag, _)| *tag == DNS_NAME);
        Some(names.filter_map(|(_, name)| Some(std::str::from_utf8(name).ok()?.to_ascii_lowercase())).collect())
    };
    found().unwrap_or_default()
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, as seconds since 1970; those before count as 0.
fn seconds(kind: u8, time: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(time).ok()?.strip_suffix('Z')?;
    let (year, rest) = text.split_at_checked(match kind {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    })?;
    let mut year: i64 = year.parse().ok()?;
    if kind == UTC_TIME {
        // RFC 5280, 4.1.2.5.1.
        year = year.checked_add(if year >= 50 { 1900 } else { 2000 })?;
    }
    let number = |at: usize| rest.get(at..at.checked_add(2)?)?.parse::<i64>().ok();
    let (month, day, hour, minute, second) = (number(0)?, number(2)?, number(4)?, number(6)?, number(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || rest.len() != 10 {
        return None;
    }
    let days = days(year, month, day)?;
    let total = days.checked_mul(86_400)?.checked_add(hour.checked_mul(3600)?)?.checked_add(minute.checked_mul(60)?)?;
    Some(u64::try_from(total.checked_add(second)?).unwrap_or(0))
}

/// Days since 1970: the years begin in March, so that the day that some have more is their last. Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `days_from_civil`.
#[expect(clippy::arithmetic_side_effects, reason = "years of four digits")]
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(seconds(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(seconds(UTC_TIME, b"500101000000Z"), Some(0), "1950");
        assert_eq!(seconds(GENERALIZED_TIME, b"20000229120000Z"), Some(951_825_600));
        assert_eq!(seconds(GENERALIZED_TIME, b"99991231235959Z"), Some(253_402_300_799));
        for odd in
            [&b""[..], b"Z", b"700101000000", b"70010100000Z", b"701301000000Z", b"70xx01000000Z", b"7001010000001Z"]
        {
            assert_eq!(seconds(UTC_TIME, odd), None);
        }
    }

    /// For `Cache.Example`, `*.b.example` and 10.0.0.1, until Nov 19 00:43:19 2036.
    const MADE: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBmzCCAUGgAwIBAgIUCyeTEgHEpFLpgv6soO6cyTgXg7kwCgYIKoZIzj0EAwIw\n\
        DDEKMAgGA1UEAwwBeDAeFw0yNjExMjIwMDQzMTlaFw0zNjExMTkwMDQzMTlaMAwx\n\
        CjAIBgNVBAMMAXgwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATFBL8DNwIsIbGb\n\
        9ko59enHfsCWwA1rEsGs2ksdjlieFawOA5o8EEHIrsst8KjP3WWqqp86xvHuALO8\n\
        lGGo967oo4GAMH4wHQYDVR0OBBYEFEjvcCCw96qyCQc/ixvsrcZGkDtRMB8GA1Ud\n\
        IwQYMBaAFEjvcCCw96qyCQc/ixvsrcZGkDtRMA8GA1UdEwEB/wQFMAMBAf8wKwYD\n\
        VR0RBCQwIoINQ2FjaGUuRXhhbXBsZYILKi5iLmV4YW1wbGWHBAoAAAEwCgYIKoZI\n\
        zj0EAwIDSAAwRQIgKfO25YsueFn/IV0hb5F/XLmVKzAzoALH9ZELTG0PbBECIQCk\n\
        /v1Z5oA+mLtgzbTE1AML2qFI2JqTFbisx8a5KyWbTA==\n\
        -----END CERTIFICATE-----\n";

    #[test]
    fn a_certificate_is_read_and_what_is_none_is_not() {
        let made = super::super::certificates(MADE.as_bytes(), "cert").unwrap();
        let der: &[u8] = &made[0];
        assert_eq!(expires(der), Some(2_110_668_199));
        assert_eq!(names(der), ["cache.example", "*.b.example"]);
        for end in 0..der.len() {
            let _ = (expires(&der[..end]), names(&der[..end]));
        }
        for at in 0..der.len() {
            let mut other = der.to_vec();
            other[at] ^= 0xff;
            let _ = (expires(&other), names(&other));
        }
    }
}
