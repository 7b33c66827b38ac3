//! A course of values in few numbers: when there are too many, each two become one. Pure.

/// The most stretches.
const STRETCHES: usize = 32;

/// Means of stretches of equally many values.
#[derive(Debug, Clone)]
pub(super) struct Trend {
    /// Sums of the stretches; the last may have fewer values than the others.
    sums: Vec<f64>,
    /// How many values a stretch has.
    length: usize,
    /// How many values there are in all.
    count: usize,
}

impl Default for Trend {
    fn default() -> Self {
        Self { sums: Vec::new(), length: 1, count: 0 }
    }
}

impl Trend {
    pub(super) fn push(&mut self, value: f64) {
        if self.count == STRETCHES * self.length {
            self.sums = self.sums.chunks(2).map(|pair| pair.iter().sum()).collect();
            self.length *= 2;
        }
        if self.count.is_multiple_of(self.length) {
            self.sums.push(0.0);
        }
        if let Some(last) = self.sums.last_mut() {
            *last += value;
        }
        self.count += 1;
    }

    /// The mean of all values.
    pub(super) fn mean(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "no attempt has 2^52 samples")]
        (self.count > 0).then(|| self.sums.iter().sum::<f64>() / self.count as f64)
    }

    /// The means of the stretches, rounded, of values from 0 to 100.
    pub(super) fn percents(&self) -> Vec<u8> {
        let last = self.sums.len().saturating_sub(1);
        let mean = |(at, sum): (usize, &f64)| {
            let values = if at == last { self.count - at * self.length } else { self.length };
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "from 0 to 100"
            )]
            ((sum / values as f64).round().clamp(0.0, 100.0) as u8)
        };
        self.sums.iter().enumerate().map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_course_keeps_its_shape_in_few_numbers() {
        let mut trend = Trend::default();
        assert_eq!((trend.mean(), trend.percents()), (None, vec![]));
        // Idle for a quarter, then busy.
        for at in 0..1000 {
            trend.push(if at < 250 { 0.0 } else { 80.0 });
        }
        let percents = trend.percents();
        assert!((17..=STRETCHES).contains(&percents.len()), "{percents:?}");
        let idle = percents.iter().filter(|percent| **percent == 0).count();
        assert!((idle * 4).abs_diff(percents.len()) <= 4, "{percents:?}");
        assert!(percents.is_sorted() && percents.ends_with(&[80]), "{percents:?}");
        assert!((trend.mean().expect("some") - 60.0).abs() < 1e-9);
    }

    #[test]
    fn a_short_one_is_told_as_it_was() {
        let mut trend = Trend::default();
        [10.0, 20.4, 99.6].into_iter().for_each(|value| trend.push(value));
        assert_eq!(trend.percents(), [10, 20, 100]);
    }
}
