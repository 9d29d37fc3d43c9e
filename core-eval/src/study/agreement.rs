//! Krippendorff's alpha: how far people agree beyond chance.

use std::collections::BTreeMap;

/// Krippendorff's alpha for nominal answers (Krippendorff 2011, "Computing Krippendorff's
/// Alpha-Reliability"). A unit holds the answers that different people gave to one thing; units with one
/// answer say nothing. 1 is agreement, 0 what chance gives; `None` where nobody could disagree. Each unit
/// has a weight.
pub fn krippendorff(units: &[Vec<usize>], weights: &[f64]) -> Option<f64> {
    let mut totals: BTreeMap<usize, f64> = BTreeMap::new();
    let mut disagreement = 0.0;
    for (unit, weight) in units.iter().zip(weights) {
        if unit.len() < 2 {
            continue;
        }
        let mut counts: BTreeMap<usize, f64> = BTreeMap::new();
        for answer in unit {
            *counts.entry(*answer).or_default() += 1.0;
        }
        let size = unit.len() as f64;
        let agreeing: f64 = counts.values().map(|count| count * (count - 1.0)).sum();
        disagreement += weight * (size - agreeing / (size - 1.0));
        for (answer, count) in counts {
            *totals.entry(answer).or_default() += weight * count;
        }
    }
    let all: f64 = totals.values().sum();
    let squares: f64 = totals.values().map(|total| total * total).sum();
    let by_chance = (all * all - squares) / (all - 1.0);
    (by_chance > 0.0).then(|| 1.0 - disagreement / by_chance)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn alpha(units: &[Vec<usize>]) -> Option<f64> {
        krippendorff(units, &vec![1.0; units.len()])
    }

    #[test]
    fn the_published_example_has_the_published_alpha() {
        // Krippendorff 2011, section C: four observers, twelve units, missing data; nominal alpha .743.
        let units = [
            vec![1, 1, 1],
            vec![2, 2, 3, 2],
            vec![3, 3, 3, 3],
            vec![3, 3, 3, 3],
            vec![2, 2, 2, 2],
            vec![1, 2, 3, 4],
            vec![4, 4, 4, 4],
            vec![1, 1, 2, 1],
            vec![2, 2, 2, 2],
            vec![5, 5, 5],
            vec![1, 1],
            vec![3],
        ];
        assert!((alpha(&units).unwrap() - 0.743).abs() < 5e-4);
    }

    #[test]
    fn two_observers_have_the_published_alpha() {
        // The same, section A: binary data, two observers, ten units; alpha .095.
        let [a, b] = [
            [0, 1, 0, 0, 0, 0, 0, 0, 1, 0],
            [1, 1, 1, 0, 0, 1, 0, 0, 0, 0],
        ];
        let units: Vec<Vec<usize>> = a.into_iter().zip(b).map(|(a, b)| vec![a, b]).collect();
        assert!((alpha(&units).unwrap() - 0.095).abs() < 5e-4);
    }

    #[test]
    fn where_nobody_could_disagree_there_is_no_alpha() {
        assert_eq!(alpha(&[vec![1, 1], vec![1]]), None);
        assert_eq!(alpha(&[vec![1], vec![2]]), None);
        assert_eq!(alpha(&[vec![1, 1], vec![2, 2]]), Some(1.0));
    }
}
