//! Where the output written so far ends.

use crate::id::Timestamp;

/// The time of the last record written, and how many records have that very time: engines stamp
/// each record with nanoseconds, but the parts of a long line share one stamp.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    last: Option<Timestamp>,
    count: u64,
}

impl Cursor {
    /// The time of the last record; reading goes on from there, that time included.
    pub fn since(&self) -> Option<Timestamp> {
        self.last
    }

    /// Notes a record that was written.
    pub fn pass(&mut self, at: Timestamp) {
        if self.last == Some(at) {
            self.count += 1;
        } else {
            *self = Self { last: Some(at), count: 1 };
        }
    }

    /// A filter for records read anew from [`Cursor::since`] on: says of each, in order, whether
    /// it is new.
    pub fn filter(self) -> impl FnMut(Timestamp) -> bool + Send {
        let mut seen = 0;
        move |at| match self.last {
            None => true,
            Some(last) if at < last => false,
            Some(last) if at == last => {
                seen += 1;
                seen > self.count
            }
            Some(_) => true,
        }
    }
}
