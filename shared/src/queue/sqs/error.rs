//! What SQS refuses, by what can be done about it.
//!
//! An answer is sorted into a [`Fault`] by its code, and each fault is made a [`QueueError`] in one
//! exhaustive match. Codes are those of the Amazon SQS API Reference ("Common errors", and each
//! action's own), with the names that they had in the older query protocol, which compatible
//! services still use.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

use crate::{
    id::Timestamp,
    queue::{QueueError, QueueName},
};

/// A request that was not done.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// The action, as policies name it: `sqs:SendMessage`.
    action: &'static str,
    fault: Fault,
    detail: String,
    /// Whether the rest of its batch may have been done; the SDK does not try that again.
    partial: bool,
}

/// What was wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is no such queue.
    NoSuchQueue,
    /// It was deleted less than 60 s ago and cannot be made again yet.
    DeletedRecently,
    /// It exists, with other attributes.
    OtherAttributes,
    /// An attribute's value is not taken.
    BadAttribute,
    /// A `MessageGroupId` is not taken on a standard queue.
    NoGroups,
    /// The receipt has lapsed, or its message is gone.
    Receipt,
    /// Too many bytes.
    TooLarge,
    /// Characters that SQS does not take.
    Characters,
    /// It is being purged already.
    PurgeInProgress,
    /// These credentials may not do that.
    Denied,
    /// There are no credentials, or unknown ones.
    NoCredentials,
    /// The credentials have expired.
    Expired,
    /// The signature is wrong, most often because a clock is.
    Signature,
    /// Too many requests, or too many messages in flight.
    Throttled,
    /// The service failed.
    Server,
    /// No answer came, or not a whole one.
    NoAnswer,
    /// A code that this program does not know.
    Other,
}

impl Fault {
    fn of(code: &str, message: &str, status: u16) -> Self {
        match code.rsplit(['.', '#']).next().unwrap_or(code) {
            "NonExistentQueue" | "QueueDoesNotExist" => Self::NoSuchQueue,
            "QueueDeletedRecently" => Self::DeletedRecently,
            "QueueNameExists" | "QueueAlreadyExists" => Self::OtherAttributes,
            "InvalidAttributeValue" | "InvalidAttributeName" => Self::BadAttribute,
            "ReceiptHandleIsInvalid" | "MessageNotInflight" | "InvalidIdFormat" => Self::Receipt,
            "BatchRequestTooLong" => Self::TooLarge,
            "InvalidMessageContents" => Self::Characters,
            "PurgeQueueInProgress" => Self::PurgeInProgress,
            "AccessDenied" | "AccessDeniedException" | "KmsAccessDenied" => Self::Denied,
            "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "InvalidAccessKeyId"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException" => Self::NoCredentials,
            "ExpiredToken" | "ExpiredTokenException" => Self::Expired,
            "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "RequestTimeTooSkewed"
            | "RequestExpired"
            | "AuthFailure" => Self::Signature,
            "RequestThrottled"
            | "Throttling"
            | "ThrottlingException"
            | "KmsThrottled"
            | "OverLimit"
            | "TooManyRequestsException"
            | "SlowDown" => Self::Throttled,
            // One code for many faults, which only the text tells apart.
            "InvalidParameterValue" | "InvalidParameterValueException" => Self::of_parameter(message),
            _ if status == 429 => Self::Throttled,
            _ if status == 403 => Self::Denied,
            _ if status >= 500 => Self::Server,
            _ => Self::Other,
        }
    }

    fn of_parameter(message: &str) -> Self {
        if message.contains("MessageGroupId") {
            Self::NoGroups
        } else if message.contains("must be shorter than") || message.contains("too long") {
            Self::TooLarge
        } else if message.contains("not available for visibility timeout change")
            || message.contains("ReceiptHandle")
        {
            Self::Receipt
        } else {
            Self::Other
        }
    }
}

impl Failure {
    /// Sorts the SDK's error.
    pub(super) fn of<E>(action: &'static str, error: &SdkError<E, HttpResponse>, now: Timestamp) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let text = chain(error);
        let (fault, detail) = match error {
            SdkError::ServiceError(answer) => {
                let message = answer.err().message().unwrap_or_default();
                let code = answer.err().code().unwrap_or_default();
                let fault = Fault::of(code, message, answer.raw().status().as_u16());
                let detail = if code.is_empty() {
                    format!("HTTP {}", answer.raw().status().as_u16())
                } else {
                    format!("{code}: {message}")
                };
                let date = answer.raw().headers().get("date");
                let skew =
                    if fault == Fault::Signature { date.and_then(|date| skew(date, now)) } else { None };
                (fault, detail + &skew.unwrap_or_default())
            }
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
                (credentials_fault(error).unwrap_or(Fault::NoAnswer), text)
            }
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) => (Fault::NoAnswer, text),
            _ => (Fault::Other, text),
        };
        Self { action, fault, detail, partial: false }
    }

    /// One entry's of a batch.
    pub(super) fn of_entry(action: &'static str, code: &str, message: &str, sender_fault: bool) -> Self {
        let status = if sender_fault { 400 } else { 500 };
        Self {
            action,
            fault: Fault::of(code, message, status),
            detail: format!("{code}: {message}"),
            partial: true,
        }
    }

    /// An entry of a batch of which the answer said nothing.
    pub(super) fn silent(action: &'static str) -> Self {
        Self {
            action,
            fault: Fault::NoAnswer,
            detail: "the answer leaves this entry out".into(),
            partial: true,
        }
    }

    pub(super) fn fault(&self) -> Fault {
        self.fault
    }

    /// Whether this entry should be sent again though its batch was answered.
    pub(super) fn is_worth_another_try(&self) -> bool {
        self.partial && matches!(self.fault, Fault::Throttled | Fault::Server | Fault::NoAnswer)
    }

    /// What the caller is told of a queue, or of all of them. `place` is where they are, for people.
    pub(super) fn into_error(self, queue: Option<&QueueName>, place: &str, size: usize) -> QueueError {
        let Self { action, fault, detail, partial: _ } = self;
        let name = queue.map_or_else(|| place.to_owned(), |queue| format!("{queue} ({place})"));
        let unusable = |detail: String| QueueError::Unusable { queue: name.clone(), detail };
        match fault {
            Fault::NoSuchQueue => match queue {
                Some(queue) => QueueError::NoSuchQueue { queue: queue.clone() },
                None => unusable(format!("{action} failed: {detail}")),
            },
            Fault::TooLarge => QueueError::TooLarge { size },
            Fault::Throttled | Fault::Server | Fault::NoAnswer | Fault::DeletedRecently => {
                let source = Answer { action, fault, detail }.into();
                QueueError::Unavailable { queue: name, source }
            }
            Fault::Denied => unusable(format!(
                "{action} is not allowed to these credentials ({detail}); `haul init URL --policies` prints what is needed"
            )),
            Fault::NoCredentials => unusable(format!(
                "there are no credentials that it knows ({detail}); docs/cloud-credentials.md says where they are looked for"
            )),
            Fault::Expired => unusable(format!(
                "the credentials have expired and their source gave no new ones ({detail}); they are asked for again at the next request"
            )),
            Fault::Signature => unusable(format!(
                "the signature is not accepted ({detail}); set this host's clock (NTP), or correct the secret key"
            )),
            Fault::BadAttribute
            | Fault::OtherAttributes
            | Fault::NoGroups
            | Fault::Receipt
            | Fault::Characters
            | Fault::PurgeInProgress
            | Fault::Other => unusable(format!("{action} failed: {detail}")),
        }
    }
}

/// What SQS answered, or that it did not.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {detail}{}", if *.fault == Fault::DeletedRecently { "; a queue can be made again 60 s after its deletion" } else { "" })]
struct Answer {
    action: &'static str,
    fault: Fault,
    detail: String,
}

/// The error and its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // Some of the SDK's layers repeat the one below.
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// Whether the request was never sent because nobody could sign it.
fn credentials_fault(error: &(dyn std::error::Error + 'static)) -> Option<Fault> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<CredentialsError>() {
            return Some(match error {
                CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
                    Fault::NoCredentials
                }
                // The instance's or the identity provider's service may be away for a moment.
                _ => Fault::NoAnswer,
            });
        }
        source = error.source();
    }
    None
}

/// How far this host's clock is from the service's, if that is far enough to matter: SQS refuses
/// requests signed more than 15 minutes from its own time.
fn skew(date: &str, now: Timestamp) -> Option<String> {
    let theirs = chrono::DateTime::parse_from_rfc2822(date).ok()?;
    let ahead = (now - theirs.to_utc()).num_seconds();
    (ahead.abs() >= 60).then(|| {
        let by = humantime::format_duration(std::time::Duration::from_secs(ahead.unsigned_abs()));
        format!("; this host's clock is {by} {} the service's", if ahead > 0 { "ahead of" } else { "behind" })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(code: &str, message: &str) -> QueueError {
        Failure::of_entry("sqs:SendMessage", code, message, true).into_error(
            Some(&QueueName::Inbox),
            "eu-1",
            7,
        )
    }

    #[test]
    fn what_a_person_must_mend_says_how() {
        let denied = entry("AccessDenied", "User x is not authorized").to_string();
        assert!(
            denied.contains("sqs:SendMessage is not allowed") && denied.contains("haul init"),
            "{denied}"
        );
        let expired = entry("ExpiredToken", "").to_string();
        assert!(expired.contains("have expired"), "{expired}");
        let unsigned = entry("InvalidClientTokenId", "").to_string();
        assert!(unsigned.contains("docs/cloud-credentials.md"), "{unsigned}");
    }

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        for code in ["RequestThrottled", "com.amazonaws.sqs#OverLimit", "Throttling"] {
            assert!(matches!(entry(code, ""), QueueError::Unavailable { .. }), "{code}");
        }
        assert!(matches!(
            Failure::of_entry("a", "InternalError", "", false).into_error(Some(&QueueName::Inbox), "", 0),
            QueueError::Unavailable { .. }
        ));
        assert!(matches!(
            entry("AWS.SimpleQueueService.NonExistentQueue", ""),
            QueueError::NoSuchQueue { .. }
        ));
        assert!(matches!(entry("BatchRequestTooLong", ""), QueueError::TooLarge { size: 7 }));
        assert!(matches!(entry("Nonsense", ""), QueueError::Unusable { .. }));
    }

    #[test]
    fn a_queue_deleted_just_now_is_told_to_be_waited_for() {
        let QueueError::Unavailable { source, .. } = entry("QueueDeletedRecently", "wait") else {
            panic!("it passes by itself");
        };
        assert!(source.to_string().ends_with("60 s after its deletion"), "{source}");
    }

    #[test]
    fn a_clock_that_is_wrong_is_named_with_how_far() {
        let now = "2026-01-01T00:20:00Z".parse().expect("a time");
        let said = skew("Thu, 01 Jan 2026 00:00:00 GMT", now).expect("far");
        assert_eq!(said, "; this host's clock is 20m ahead of the service's");
        assert_eq!(skew("Thu, 01 Jan 2026 00:20:30 GMT", now), None);
    }
}
