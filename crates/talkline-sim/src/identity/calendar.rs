//! Seconds since 1970 as the dates that the services write.

/// The fields of a moment, in UTC.
struct Moment {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

/// Counts years from 1 March, so that the leap day comes last, in cycles of 400 years (the proleptic Gregorian
/// calendar of ISO 8601).
fn moment(unix: u64) -> Moment {
    const CYCLE_DAYS: u64 = 146_097;
    /// Days from 1 March 0000 to 1 January 1970.
    const EPOCH_DAYS: u64 = 719_468;
    let days = unix / 86_400 + EPOCH_DAYS;
    let (cycle, of_cycle) = (days / CYCLE_DAYS, days % CYCLE_DAYS);
    let leap_days = of_cycle / 1_460 - of_cycle / 36_524 + of_cycle / 146_096;
    let year_of_cycle = (of_cycle - leap_days) / 365;
    let of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    // From March, months have 31, 30, 31, 30, 31 days and again: 153 days in five.
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let second_of_day = unix % 86_400;
    Moment {
        year: cycle * 400 + year_of_cycle + u64::from(month <= 2),
        month,
        day: of_year - (153 * from_march + 2) / 5 + 1,
        hour: second_of_day / 3600,
        minute: second_of_day / 60 % 60,
        second: second_of_day % 60,
    }
}

/// `2026-11-22T10:00:00Z` (RFC 3339).
pub(super) fn rfc3339(unix: u64) -> String {
    let Moment {
        year,
        month,
        day,
        hour,
        minute,
        second,
    } = moment(unix);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `2026-11-22 10:00:00Z`, as Entra writes it.
pub(super) fn spaced(unix: u64) -> String {
    rfc3339(unix).replace('T', " ")
}

/// `11/22/2026 10:00:00 AM +00:00`, as an early App Service endpoint wrote it.
pub(super) fn american(unix: u64) -> String {
    let Moment {
        year,
        month,
        day,
        hour,
        minute,
        second,
    } = moment(unix);
    let half = if hour < 12 { "AM" } else { "PM" };
    let hour = (hour + 11) % 12 + 1;
    format!("{month}/{day}/{year} {hour}:{minute:02}:{second:02} {half} +00:00")
}

#[cfg(test)]
mod tests {
    use super::{american, rfc3339, spaced};

    #[test]
    fn moments_are_written_as_the_services_do() {
        for (unix, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(unix), expected);
        }
        assert_eq!(spaced(1_735_689_600), "2025-01-01 00:00:00Z");
        assert_eq!(american(1_735_689_600), "1/1/2025 12:00:00 AM +00:00");
        assert_eq!(american(1_735_689_599), "12/31/2024 11:59:59 PM +00:00");
    }
}
