//! What a device's clock is set to. The device checks the form of an offset, and neither its range nor its zone.

use std::time::SystemTime;

use factory_settings::{Table, flag, text};
use jiff::{Timestamp, tz::TimeZone};

// A zone changes its offset twice a year at most; four looks see both.
const SEASON: i64 = 91 * 24 * 3600;

/// What a device's clock is set to when it is given its bundle.
#[derive(Debug, Clone)]
pub struct Time {
    /// As in `Europe/London`.
    pub zone: String,
    rules: TimeZone,
    offset: Option<String>,
}

impl Time {
    /// `None` after a complaint, `Some(None)` where the clock is not to be set.
    pub(super) fn written(file: &mut Table<'_>) -> Option<Option<Self>> {
        let is_set = file.or("time-sync", true, flag);
        let zone: Option<Option<String>> = file.optional("time-zone", text);
        let offset: Option<Option<String>> = file.optional("utc-offset", text);
        let (zone, offset) = (zone?, offset?);
        if !is_set? {
            for (key, is_there) in [("time-zone", zone.is_some()), ("utc-offset", offset.is_some())] {
                if is_there {
                    file.complain(key, "is only given with time-sync = true");
                }
            }
            return Some(None);
        }
        let zone = zone.unwrap_or_else(|| "UTC".to_owned());
        let Ok(rules) = TimeZone::get(&zone) else {
            file.complain(
                "time-zone",
                format!("{zone:?} is no time zone of the IANA database, as Europe/London is"),
            );
            return None;
        };
        if let Some(offset) = &offset {
            check_offset(file, offset, &zone, &rules)?;
        }
        Some(Some(Self { zone, rules, offset }))
    }

    /// How far local time is ahead of UTC, as in `+01:00`: as the recipe says, or as it is in the zone now.
    pub fn utc_offset(&self, now: SystemTime) -> String {
        let now = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
        self.offset.clone().unwrap_or_else(|| offset_at(&self.rules, now))
    }
}

fn check_offset(file: &Table<'_>, offset: &str, zone: &str, rules: &TimeZone) -> Option<()> {
    if !is_utc_offset(offset) {
        file.complain("utc-offset", "must be from -12:00 to +14:00, written as in \"+01:00\"");
        return None;
    }
    let now = Timestamp::now().as_second();
    let mut seen: Vec<String> = (0..4)
        .filter_map(|season| Timestamp::from_second(now + season * SEASON).ok())
        .map(|time| offset_at(rules, time))
        .collect();
    seen.sort();
    seen.dedup();
    if !seen.iter().any(|seen| seen == offset) {
        let seen = seen.join(" or ");
        file.complain(
            "utc-offset",
            format!("is never {offset} in {zone}, but {seen}; leave it out to give what holds at the time"),
        );
        return None;
    }
    Some(())
}

fn offset_at(rules: &TimeZone, time: Timestamp) -> String {
    let minutes = rules.to_offset(time).seconds() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

fn is_utc_offset(text: &str) -> bool {
    let &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = text.as_bytes() else { return false };
    if ![h1, h2, m1, m2].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let two = |high: u8, low: u8| u32::from(high - b'0') * 10 + u32::from(low - b'0');
    let (minutes, offset) = (two(m1, m2), two(h1, h2) * 60 + two(m1, m2));
    minutes < 60 && offset <= if sign == b'+' { 14 * 60 } else { 12 * 60 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_offset_is_as_the_zone_has_it_at_the_time() {
        let check = |zone: &str, seconds: u64, wanted: &str| {
            let time = Time { zone: zone.into(), rules: TimeZone::get(zone).unwrap(), offset: None };
            assert_eq!(
                time.utc_offset(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
                wanted,
                "{zone}"
            );
        };
        let (january, july) = (1_767_225_600, 1_782_864_000);
        check("UTC", january, "+00:00");
        check("Europe/London", january, "+00:00");
        check("Europe/London", july, "+01:00");
        check("America/St_Johns", january, "-03:30");
        check("Asia/Kathmandu", july, "+05:45");
    }
}
