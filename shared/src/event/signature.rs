//! Signatures of webhooks, by the Standard Webhooks specification (standardwebhooks.com, "Webhook
//! signatures", symmetric): HMAC-SHA256 over id, time and body, joined by dots.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// A secret that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook's secret is whsec_ and the base64 of 24 to 64 random bytes")]
pub struct BadKey;

/// A key that signs events. Never shown.
#[derive(Clone)]
pub struct SigningKey(Vec<u8>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("REDACTED")
    }
}

impl SigningKey {
    /// Reads `whsec_…`.
    ///
    /// # Errors
    /// [`BadKey`]
    pub fn read(secret: &str) -> Result<Self, BadKey> {
        let text = secret.trim().strip_prefix("whsec_").ok_or(BadKey)?;
        let key = STANDARD.decode(text).map_err(|_| BadKey)?;
        if (24..=64).contains(&key.len()) { Ok(Self(key)) } else { Err(BadKey) }
    }

    fn mac(&self, id: &str, timestamp: i64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        mac
    }

    /// What the header `webhook-signature` says of this event, sent at this time in seconds since
    /// 1970.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.mac(id, timestamp, body).finalize().into_bytes()))
    }

    /// Whether one of the signatures in that header is this key's. In constant time.
    pub fn verify(&self, id: &str, timestamp: i64, body: &[u8], header: &str) -> bool {
        header.split(' ').filter_map(|signature| signature.strip_prefix("v1,")).any(|signature| {
            let given = STANDARD.decode(signature).unwrap_or_default();
            self.mac(id, timestamp, body).verify_slice(&given).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The vector that the specification's reference libraries test themselves with.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn the_signature_is_that_of_the_reference_libraries() {
        let key = SigningKey::read(SECRET).expect("valid");
        assert_eq!(key.sign(ID, TIMESTAMP, BODY), SIGNATURE);
        assert!(key.verify(ID, TIMESTAMP, BODY, SIGNATURE));
        assert!(key.verify(ID, TIMESTAMP, BODY, &format!("v1,AAAA v2,x {SIGNATURE}")));
        assert!(!key.verify(ID, TIMESTAMP + 1, BODY, SIGNATURE));
        assert!(!key.verify(ID, TIMESTAMP, b"{}", SIGNATURE));
        assert_eq!(format!("{key:?}"), "REDACTED");
    }

    #[rstest]
    #[case("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    #[case("whsec_")]
    #[case("whsec_c2hvcnQ=")]
    #[case("whsec_not base64")]
    fn what_is_no_secret_is_refused(#[case] secret: &str) {
        assert_eq!(SigningKey::read(secret).err(), Some(BadKey));
    }
}
