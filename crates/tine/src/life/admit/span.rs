//! Times and rates as an operator writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time: `250ms`, `90`, `90s`, `10m`, `2h`, `1d`; a number alone is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// So many in a time: `10/s`, `5/m`, `1/h`, and after a colon how many may come at once: `10/s:50`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
    /// How many may come at once, after a time in which nobody came. As many as `count` unless given.
    pub burst: u32,
}

/// The longest that can be written: longer ones are mistakes more often than wishes.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// The units of a [`Span`].
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let form = || format!("'{text}' is no time: a number and ms, s, m, h or d, as in 250ms, 90s or 10m");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = if unit.is_empty() { "s" } else { unit };
        let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(form)?;
        let number: u64 = number.parse().map_err(|_| form())?;
        let span = number.checked_mul(*milliseconds).map(Duration::from_millis);
        span.filter(|span| *span <= LONGEST).map(Span).ok_or_else(|| format!("'{text}' is more than a year"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_millis() as u64;
        let fits = |(_, unit): &&(&str, u64)| whole > 0 && whole.is_multiple_of(*unit);
        let (name, unit) = UNITS.iter().rev().find(fits).unwrap_or(&UNITS[1]);
        write!(f, "{}{name}", whole / unit)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let form = || format!("'{text}' is no rate: a number, / and s, m or h, as in 10/s, 5/m or 10/s:50");
        let (count, rest) = text.split_once('/').ok_or_else(form)?;
        let (unit, burst) = rest.split_once(':').map_or((rest, count), |(unit, burst)| (unit, burst));
        let per = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(form()),
        };
        let number = |digits: &str| digits.parse::<u32>().ok().filter(|n| (1..=1_000_000).contains(n));
        let (count, burst) = number(count).zip(number(burst)).ok_or_else(form)?;
        Ok(Rate { count, per: Duration::from_secs(per), burst })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            60 => "m",
            3600 => "h",
            _ => "s",
        };
        write!(f, "{}/{unit}:{}", self.count, self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_a_number_alone_is_seconds() {
        let span = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
        assert_eq!(span("250ms"), Ok(250));
        assert_eq!(span("90"), Ok(90_000));
        assert_eq!(span("10m"), Ok(600_000));
        assert_eq!(span("366d"), Ok(366 * 86_400_000));
        for wrong in ["", "s", "-1", "+1", "1.5s", "1 s", "1w", "367d", "99999999999999999999s", "é"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
        for text in ["250ms", "90s", "10m", "2h", "1d", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_rate_is_a_number_in_a_time_and_its_burst_is_that_number_unless_given() {
        let rate = |text: &str| text.parse::<Rate>();
        assert_eq!(rate("10/s"), Ok(Rate { count: 10, per: Duration::from_secs(1), burst: 10 }));
        assert_eq!(rate("5/m:1"), Ok(Rate { count: 5, per: Duration::from_secs(60), burst: 1 }));
        for wrong in ["", "10", "0/s", "10/", "10/d", "10/s:", "10/s:0", "1000001/s", "/s", "-1/s", "1/s:2:3"]
        {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
