//! From SQS's messages to ours.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_sqs::{
    operation::receive_message::builders::ReceiveMessageFluentBuilder,
    types::{Message, MessageSystemAttributeName, QueueAttributeName},
};

use crate::{
    id::Timestamp,
    queue::{Receipt, Received},
};

/// What a queue's depth is made of: waiting, in flight, delayed.
pub(super) const DEPTH: [QueueAttributeName; 3] = [
    QueueAttributeName::ApproximateNumberOfMessages,
    QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
    QueueAttributeName::ApproximateNumberOfMessagesDelayed,
];

/// SQS counts whole seconds; parts of one are rounded up.
pub(super) fn seconds(time: Duration, most: Duration) -> i32 {
    let time = time.min(most);
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    i32::try_from(whole).unwrap_or(i32::MAX)
}

/// Asks for all that [`read`] needs.
pub(super) fn with_attributes(request: ReceiveMessageFluentBuilder) -> ReceiveMessageFluentBuilder {
    request
        .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
        .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
        .message_attribute_names("All")
}

/// A message as the trait has it. `now` stands in where a service does not say when it was sent.
pub(super) fn read(message: Message, now: Timestamp) -> Received {
    let system = |name| message.attributes.as_ref()?.get(&name)?.parse::<i64>().ok();
    let receives = system(MessageSystemAttributeName::ApproximateReceiveCount);
    let sent_at = system(MessageSystemAttributeName::SentTimestamp);
    Received {
        receives: receives.and_then(|count| count.try_into().ok()).unwrap_or(1),
        sent_at: sent_at.and_then(Timestamp::from_timestamp_millis).unwrap_or(now),
        id: message.message_id.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
        receipt: Receipt(message.receipt_handle.unwrap_or_default()),
        // Binary ones are none of ours.
        attributes: message
            .message_attributes
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.string_value?)))
            .collect::<BTreeMap<_, _>>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_second_are_rounded_up() {
        let most = Duration::from_secs(20);
        for (millis, expected) in [(0, 0), (1, 1), (1000, 1), (1001, 2), (99_000, 20)] {
            assert_eq!(seconds(Duration::from_millis(millis), most), expected);
        }
    }

    #[test]
    fn a_message_is_read_with_its_attributes() {
        let value =
            aws_sdk_sqs::types::MessageAttributeValue::builder().data_type("String").string_value("v");
        let message = Message::builder()
            .message_id("m")
            .receipt_handle("r")
            .body("b")
            .attributes(MessageSystemAttributeName::ApproximateReceiveCount, "3")
            .attributes(MessageSystemAttributeName::SentTimestamp, "1700000000123")
            .message_attributes("k", value.build().expect("complete"))
            .build();
        let read = read(message, Timestamp::UNIX_EPOCH);
        assert_eq!((read.id.as_str(), read.body.as_str(), read.receives), ("m", "b", 3));
        assert_eq!(read.sent_at.timestamp_millis(), 1_700_000_000_123);
        assert_eq!(read.attributes, BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    }
}
