//! How well cosines tell pairs of one subject from pairs of two.

/// Figures of one kind of pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verification {
    /// Mean of the shares of right decisions on pairs of one and of two subjects, at the best
    /// threshold.
    pub(super) accuracy: f64,
    /// The probability that a pair of one subject has a greater cosine than a pair of two.
    pub(super) auc: f64,
}

impl Verification {
    /// From the cosines of pairs of one subject and of pairs of two.
    pub(super) fn new(mut same: Vec<f32>, mut other: Vec<f32>) -> Self {
        same.sort_by(f32::total_cmp);
        other.sort_by(f32::total_cmp);
        let (count, others) = (same.len() as f64, other.len() as f64);
        let (mut wins, mut accuracy) = (0.0, 0.5_f64);
        for (rejected, cosine) in same.iter().enumerate() {
            let below = other.partition_point(|other| other < cosine) as f64;
            wins += below;
            // With the threshold at this cosine, this pair and all above it are taken for one subject.
            let accepted = (count - rejected as f64) / count;
            accuracy = accuracy.max((accepted + below / others) / 2.0);
        }
        Self {
            accuracy,
            auc: wins / (count * others),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_that_a_threshold_separates_have_accuracy_and_auc_of_one() {
        let perfect = Verification::new(vec![0.9, 0.6], vec![0.1, -0.3, 0.5]);
        assert_eq!((perfect.accuracy, perfect.auc), (1.0, 1.0));
    }

    #[test]
    fn mistaken_pairs_are_lost_and_equal_cosines_do_not_count_as_right() {
        // Of one subject: .5, .9; of two: .7, .1. Three of four comparisons are right; the threshold
        // .9 accepts one of two and rejects both others.
        let mistaken = Verification::new(vec![0.5, 0.9], vec![0.7, 0.1]);
        assert_eq!((mistaken.accuracy, mistaken.auc), (0.75, 0.75));
        let collapsed = Verification::new(vec![1.0; 3], vec![1.0; 5]);
        assert_eq!((collapsed.accuracy, collapsed.auc), (0.5, 0.0));
    }
}
