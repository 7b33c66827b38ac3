//! What a host costs, and what that makes of an attempt.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a host costs. As text `2.40USD:on-demand:PROVIDER`, of which all but the number and the currency may
/// be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// The whole host, for an hour.
    pub per_hour: f64,
    /// ISO 4217, as in `USD`.
    pub currency: String,
    /// Whether it is paid for while it idles.
    #[serde(default)]
    pub terms: Terms,
    /// Who is paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

/// Whether a host is paid for while it idles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Terms {
    /// By the month, or bought.
    #[default]
    Fixed,
    /// For as long as it is there.
    OnDemand,
}

/// A sum of money.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// How much.
    pub amount: f64,
    /// ISO 4217.
    pub currency: String,
}

impl Price {
    /// What a part of the host (0 to 1) costs for so many seconds.
    pub fn of(&self, part: f64, seconds: f64) -> Cost {
        Cost { amount: self.per_hour * part * seconds / 3600.0, currency: self.currency.clone() }
    }
}

impl fmt::Display for Cost {
    /// To the cent, and small sums to two digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { amount, currency } = self;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 2 to some hundreds"
        )]
        let digits =
            if *amount >= 0.1 || *amount <= 0.0 { 2 } else { (1.0 - amount.log10().floor()) as usize };
        write!(f, "{amount:.digits$} {currency}")
    }
}

/// A text that is no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no price: write NUMBER and CURRENCY for an hour of the host, as in 2.40USD, 2.40USD:on-demand or 1.10EUR:fixed:PROVIDER"
)]
pub struct PriceError {
    text: String,
}

impl FromStr for Price {
    type Err = PriceError;

    fn from_str(text: &str) -> Result<Self, PriceError> {
        let error = || PriceError { text: text.to_owned() };
        let mut parts = text.splitn(3, ':');
        let sum = parts.next().unwrap_or_default().trim();
        let at = sum.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(error)?;
        let (number, currency) = sum.split_at(at);
        let per_hour: f64 = number.trim().parse().map_err(|_| error())?;
        let is_currency = currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase());
        if !is_currency || !per_hour.is_finite() || per_hour < 0.0 {
            return Err(error());
        }
        let terms = match parts.next() {
            None | Some("fixed") => Terms::Fixed,
            Some("on-demand") => Terms::OnDemand,
            Some(_) => return Err(error()),
        };
        let provider = parts.next().map(str::to_owned);
        if provider.as_ref().is_some_and(|name| name.is_empty() || name.chars().any(char::is_control)) {
            return Err(error());
        }
        Ok(Self { per_hour, currency: currency.to_owned(), terms, provider })
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = match self.terms {
            Terms::Fixed => "fixed",
            Terms::OnDemand => "on-demand",
        };
        write!(f, "{}{}:{terms}", self.per_hour, self.currency)?;
        self.provider.as_ref().map_or(Ok(()), |provider| write!(f, ":{provider}"))
    }
}

/// A price as text in a record, in place of its fields.
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Price;

    /// Writes it.
    pub fn serialize<S: Serializer>(price: &Price, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(price)
    }

    /// Reads it.
    ///
    /// # Errors
    /// A text that is no price, with how to write one.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Price, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2.40USD", "2.4USD:fixed")]
    #[case("1 EUR:on-demand:aws", "1EUR:on-demand:aws")]
    #[case("0USD:fixed:own: rack 3", "0USD:fixed:own: rack 3")]
    fn prices_are_read(#[case] text: &str, #[case] shown: &str) {
        let price: Price = text.parse().expect("valid");
        assert_eq!(price.to_string(), shown);
        assert_eq!(shown.parse(), Ok(price));
    }

    #[rstest]
    fn what_is_no_price_is_refused(
        #[values("", "2.40", "USD", "2.40$", "-1USD", "infUSD", "1usd", "1USD:spot", "1USD:fixed:")]
        text: &str,
    ) {
        assert!(text.parse::<Price>().is_err());
    }

    #[test]
    fn a_part_of_a_host_costs_its_part() {
        let price: Price = "8USD".parse().expect("valid");
        assert_eq!(price.of(0.25, 1800.0), Cost { amount: 1.0, currency: "USD".into() });
        let shown =
            [0.0, 0.000_123, 0.099, 12.345].map(|amount| Cost { amount, currency: "EUR".into() }.to_string());
        assert_eq!(shown, ["0.00 EUR", "0.00012 EUR", "0.099 EUR", "12.35 EUR"].map(str::to_owned));
    }
}
