//! The operator's table of what hosts cost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::price::{self, Price};

/// The label by which a node says who is paid for it.
const PROVIDER: &str = "provider";

/// What the hosts with some labels cost, such as those of a provider and a machine type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tariff {
    /// Labels that they have.
    pub labels: BTreeMap<String, String>,
    /// For an hour.
    #[serde(with = "price::text")]
    pub price: Price,
}

impl Tariff {
    /// What a host with these labels costs: the row with the most labels of those that it has all of, and of
    /// equals the first. Where the row does not say who is paid, the host's label `provider` does.
    pub fn price_in(table: &[Self], labels: &BTreeMap<String, String>) -> Option<Price> {
        let says = |row: &&Self| row.labels.iter().all(|(key, value)| labels.get(key) == Some(value));
        let most = table.iter().rev().filter(says).max_by_key(|row| row.labels.len())?;
        let provider = most.price.provider.clone().or_else(|| labels.get(PROVIDER).cloned());
        Some(Price { provider, ..most.price.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.into(), value.into())).collect()
    }

    #[test]
    fn the_row_that_says_the_most_of_a_host_holds() {
        let table = r#"[
            {"labels": {"provider": "aws", "machine_type": "p5.48xlarge"}, "price": "98USD:on-demand"},
            {"labels": {"provider": "aws", "machine_type": "p5.48xlarge", "region": "eu-north-1"}, "price": "90USD"},
            {"labels": {"machine_type": "p5.48xlarge", "provider": "aws"}, "price": "1USD"},
            {"labels": {"rack": "3"}, "price": "2.5EUR:fixed:own"}
        ]"#;
        let table: Vec<Tariff> = serde_json::from_str(table).expect("valid");
        let price = |text: &str| Tariff::price_in(&table, &labels(text)).map(|price| price.to_string());
        let host = "provider=aws machine_type=p5.48xlarge";
        assert_eq!(price(host).as_deref(), Some("98USD:on-demand:aws"));
        assert_eq!(price(&format!("{host} region=us-east-1")).as_deref(), Some("98USD:on-demand:aws"));
        assert_eq!(price(&format!("{host} region=eu-north-1 a=b")).as_deref(), Some("90USD:fixed:aws"));
        assert_eq!(price("rack=3 provider=aws").as_deref(), Some("2.5EUR:fixed:own"));
        assert_eq!(price("provider=aws"), None);
        let back: Vec<Tariff> =
            serde_json::from_value(serde_json::to_value(&table).expect("json")).expect("valid");
        assert_eq!(back, table);
    }
}
