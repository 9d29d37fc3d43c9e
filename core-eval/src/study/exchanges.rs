//! Exchanges of votes between people, so that nobody sees a pair of images twice.

use rand::{Rng, RngExt};

use super::coloring::Edge;

/// How many exchanges are tried before a design counts as impossible.
const EXCHANGES: usize = 200_000;

/// Exchanges votes between people until nobody has more votes on one prompt in one comparison than
/// there are images of it. An exchange gives away the votes (c, k) and (d, l) for (d, k) and (c, l) of
/// somebody else, so all counts of comparisons and of prompts stay. Exchanges that leave the excess as it
/// is are made as well, since a better one may become possible.
pub(super) fn separate(blocks: &mut [Vec<Edge>], images: &[usize], generator: &mut impl Rng) {
    let counted = |block: &[Edge], edge: Edge| block.iter().filter(|e| **e == edge).count();
    // How many votes of a block are on pairs that were seen before.
    let excess = |block: &[Edge]| -> usize {
        let is_beyond = |at: &usize| counted(&block[..=*at], block[*at]) > images[block[*at].1];
        (0..block.len()).filter(is_beyond).count()
    };
    let mut excesses: Vec<usize> = blocks.iter().map(|block| excess(block)).collect();
    for attempt in 0..EXCHANGES {
        let Some(crowded) = excesses.iter().position(|excess| *excess > 0) else {
            return;
        };
        let person = match attempt % 2 {
            0 => crowded,
            _ => generator.random_range(0..blocks.len()),
        };
        let other = generator.random_range(0..blocks.len());
        let size = blocks[person].len();
        let (at, also) = (
            generator.random_range(0..size),
            generator.random_range(0..size),
        );
        let ((c, k), (d, l)) = (blocks[person][at], blocks[person][also]);
        let place = |edge: Edge| blocks[other].iter().position(|e| *e == edge);
        let (Some(first), Some(second)) = (place((d, k)), place((c, l))) else {
            continue;
        };
        if person == other || c == d || k == l {
            continue;
        }
        let (mut mine, mut theirs) = (blocks[person].clone(), blocks[other].clone());
        (mine[at], mine[also], theirs[first], theirs[second]) = ((d, k), (c, l), (c, k), (d, l));
        let after = [excess(&mine), excess(&theirs)];
        if after[0] + after[1] <= excesses[person] + excesses[other] {
            (blocks[person], blocks[other]) = (mine, theirs);
            (excesses[person], excesses[other]) = (after[0], after[1]);
        }
    }
}
