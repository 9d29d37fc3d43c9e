//! Strengths of variants from pairwise votes with ties: Davidson's extension of the Bradley-Terry model.
//!
//! Davidson 1970, "On Extending the Bradley-Terry Model to Accommodate Ties in Paired Comparison
//! Experiments": with strengths p and a tie parameter v, i is preferred to j with probability
//! p_i / (p_i + p_j + v sqrt(p_i p_j)), and nobody can tell with probability
//! v sqrt(p_i p_j) / (p_i + p_j + v sqrt(p_i p_j)).

/// The steps after which the search ends.
const STEPS: usize = 20_000;

/// The largest change of a step at the maximum.
const TOLERANCE: f64 = 1e-12;

/// How often each variant was preferred to each other one.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// `wins[i][j]`: how often i was preferred to j.
    pub wins: Vec<Vec<f64>>,
    /// `ties[i][j]`, equal to `ties[j][i]`: how often nobody could tell.
    pub ties: Vec<Vec<f64>>,
}

/// The maximum of the likelihood.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The logarithms of the strengths; their mean is 0.
    pub strengths: Vec<f64>,
    /// The tie parameter.
    pub tie: f64,
}

impl Counts {
    /// No votes on so many variants.
    pub fn new(variants: usize) -> Self {
        let none = vec![vec![0.0; variants]; variants];
        Self {
            wins: none.clone(),
            ties: none,
        }
    }

    /// Adds votes on two variants, where 1 prefers the first, 0 the second, and 1/2 neither.
    pub fn add(&mut self, first: usize, second: usize, value: f64, weight: f64) {
        if value == 0.5 {
            self.ties[first][second] += weight;
            self.ties[second][first] += weight;
        } else if value > 0.5 {
            self.wins[first][second] += weight;
        } else {
            self.wins[second][first] += weight;
        }
    }

    fn variants(&self) -> usize {
        self.wins.len()
    }

    fn votes(&self, i: usize, j: usize) -> f64 {
        self.wins[i][j] + self.wins[j][i] + self.ties[i][j]
    }

    /// Whether the likelihood has a maximum: some vote is no tie, and from every variant a chain of "was
    /// preferred to, or tied with" leads to every other one (Ford 1957).
    fn has_maximum(&self) -> bool {
        let decided: f64 = self.wins.iter().flatten().sum();
        let count = self.variants();
        let reaches_all = |edge: &dyn Fn(usize, usize) -> bool| {
            let mut reached = vec![false; count];
            let mut waiting = vec![0];
            while let Some(at) = waiting.pop() {
                if !std::mem::replace(&mut reached[at], true) {
                    waiting.extend((0..count).filter(|next| edge(at, *next)));
                }
            }
            reached.into_iter().all(|reached| reached)
        };
        let edge = |i: usize, j: usize| self.wins[i][j] + self.ties[i][j] > 0.0;
        decided > 0.0 && reaches_all(&edge) && reaches_all(&|i, j| edge(j, i))
    }
}

/// The maximum of the likelihood, by minorisation and maximisation (Hunter 2004, "MM Algorithms for
/// Generalized Bradley-Terry Models"): sqrt(p_i p_j) is at most the mean of p_i and p_j, each scaled such
/// that both are equal at the present strengths, so the bound falls apart into one term per strength.
/// `None` where the likelihood has no maximum, because some variants were never preferred to others.
pub fn fit(counts: &Counts) -> Option<Fit> {
    if !counts.has_maximum() {
        return None;
    }
    let count = counts.variants();
    let scores: Vec<f64> = (0..count)
        .map(|i| {
            let of = (0..count).map(|j| counts.wins[i][j] + counts.ties[i][j] / 2.0);
            of.sum()
        })
        .collect();
    let tied: f64 = counts.ties.iter().flatten().sum::<f64>() / 2.0;
    let mut strengths = vec![1.0; count];
    let mut tie: f64 = if tied > 0.0 { 1.0 } else { 0.0 };
    for _ in 0..STEPS {
        let before = (strengths.clone(), tie);
        strengths = next_strengths(counts, &scores, &before.0, tie);
        if tied > 0.0 {
            tie = tied / geometric_share(counts, &strengths, tie);
        }
        let pairs = strengths.iter().zip(&before.0);
        let change = pairs.map(|(new, old)| (new / old).ln().abs());
        let change = change.fold((tie - before.1).abs(), f64::max);
        if change < TOLERANCE {
            break;
        }
    }
    Some(Fit {
        strengths: strengths.into_iter().map(f64::ln).collect(),
        tie,
    })
}

fn next_strengths(counts: &Counts, scores: &[f64], strengths: &[f64], tie: f64) -> Vec<f64> {
    let count = strengths.len();
    let new = (0..count).map(|i| {
        let terms = (0..count).filter(|j| *j != i).map(|j| {
            let (p, q) = (strengths[i], strengths[j]);
            let all = p + q + tie * (p * q).sqrt();
            counts.votes(i, j) * (1.0 + tie / 2.0 * (q / p).sqrt()) / all
        });
        scores[i] / terms.sum::<f64>()
    });
    let new: Vec<f64> = new.collect();
    // Only ratios matter; the geometric mean is kept at 1.
    let mean = new.iter().map(|p| p.ln()).sum::<f64>() / count as f64;
    new.into_iter().map(|p| p / mean.exp()).collect()
}

/// The expected number of ties divided by the tie parameter.
fn geometric_share(counts: &Counts, strengths: &[f64], tie: f64) -> f64 {
    let count = strengths.len();
    let mut sum = 0.0;
    for i in 0..count {
        for j in i + 1..count {
            let root = (strengths[i] * strengths[j]).sqrt();
            let all = strengths[i] + strengths[j] + tie * root;
            sum += counts.votes(i, j) * root / all;
        }
    }
    sum
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use core_model::rng::rng;
    use rand::RngExt;

    use super::*;

    fn likelihood(counts: &Counts, strengths: &[f64], tie: f64) -> f64 {
        let mut sum = 0.0;
        for i in 0..strengths.len() {
            for j in 0..strengths.len() {
                let (p, q) = (strengths[i].exp(), strengths[j].exp());
                let all = p + q + tie * (p * q).sqrt();
                sum += counts.wins[i][j] * (p / all).ln();
                if i < j && counts.ties[i][j] > 0.0 {
                    sum += counts.ties[i][j] * (tie * (p * q).sqrt() / all).ln();
                }
            }
        }
        sum
    }

    /// The maximum by steps along one coordinate at a time, halved whenever none of them helps: slow, and
    /// nothing but the likelihood itself.
    fn direct(counts: &Counts) -> (Vec<f64>, f64) {
        let count = counts.variants();
        let mut at = vec![0.0; count];
        let value = |at: &[f64]| {
            let strengths: Vec<f64> = [&[0.0], &at[..count - 1]].concat();
            likelihood(counts, &strengths, at[count - 1].exp())
        };
        let (mut best, mut step) = (value(&at), 1.0);
        while step > 1e-9 {
            let mut better = false;
            for coordinate in 0..count {
                for sign in [-1.0, 1.0] {
                    let mut moved = at.clone();
                    moved[coordinate] += sign * step;
                    if value(&moved) > best {
                        (best, at, better) = (value(&moved), moved, true);
                    }
                }
            }
            if !better {
                step /= 2.0;
            }
        }
        let strengths: Vec<f64> = [&[0.0], &at[..count - 1]].concat();
        let mean = strengths.iter().sum::<f64>() / count as f64;
        let strengths = strengths.iter().map(|s| s - mean).collect();
        (strengths, at[count - 1].exp())
    }

    #[test]
    fn two_variants_without_ties_have_the_log_odds_of_their_votes() {
        let mut counts = Counts::new(2);
        counts.add(0, 1, 1.0, 30.0);
        counts.add(0, 1, 0.0, 10.0);
        let fit = fit(&counts).unwrap();
        assert!((fit.strengths[0] - fit.strengths[1] - 3.0_f64.ln()).abs() < 1e-9);
        assert_eq!(fit.tie, 0.0);
    }

    #[test]
    fn two_variants_with_ties_are_fitted_exactly() {
        // Wins 40 and 10, ties 20: p/q = 40/10, and ties / sqrt(wins) = 20 / sqrt(400) = 1.
        let mut counts = Counts::new(2);
        counts.add(0, 1, 1.0, 40.0);
        counts.add(0, 1, 0.0, 10.0);
        counts.add(0, 1, 0.5, 20.0);
        let fit = fit(&counts).unwrap();
        assert!((fit.strengths[0] - fit.strengths[1] - 4.0_f64.ln()).abs() < 1e-8);
        assert!((fit.tie - 1.0).abs() < 1e-8, "{fit:?}");
    }

    #[test]
    fn the_fit_is_the_direct_maximum_of_the_likelihood() {
        for index in 0..5 {
            let mut draws = rng(0, "random votes", index);
            let mut counts = Counts::new(3 + index as usize % 2);
            for i in 0..counts.variants() {
                for j in i + 1..counts.variants() {
                    for value in [0.0, 0.5, 1.0] {
                        counts.add(i, j, value, f64::from(draws.random_range(1..30)));
                    }
                }
            }
            let fit = fit(&counts).unwrap();
            let (strengths, tie) = direct(&counts);
            for (ours, theirs) in fit.strengths.iter().zip(&strengths) {
                assert!((ours - theirs).abs() < 1e-5, "{fit:?} {strengths:?}");
            }
            assert!((fit.tie - tie).abs() < 1e-5, "{} {tie}", fit.tie);
        }
    }

    #[test]
    fn votes_without_a_maximum_are_told_apart() {
        let mut counts = Counts::new(3);
        assert_eq!(fit(&counts), None, "no votes");
        counts.add(0, 1, 1.0, 5.0);
        counts.add(1, 2, 1.0, 5.0);
        assert_eq!(fit(&counts), None, "the first one always wins");
        counts.add(2, 0, 0.5, 1.0);
        assert!(fit(&counts).is_some(), "a tie closes the chain");
    }
}
