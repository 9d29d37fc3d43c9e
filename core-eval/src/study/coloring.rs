//! Distributes the edges of a bipartite graph over colours such that every vertex meets each colour
//! equally often, within one (an equitable edge colouring; de Werra 1971). In a study a colour is a
//! person, an edge is a vote, and the vertices are comparisons and prompts.

/// An edge: a vertex on the left and one on the right.
pub(super) type Edge = (usize, usize);

/// The colour of every edge. At each vertex the numbers of edges of two colours differ by one at most,
/// and so do the sizes of all colours.
///
/// A vertex is split into parts of at most `colors` edges; a proper colouring of the parts (König 1916),
/// in which no part meets a colour twice, is then equitable at the vertex.
pub(super) fn equitable(edges: &[Edge], colors: usize) -> Vec<usize> {
    let mut coloring = Coloring::new(edges, colors);
    for edge in 0..edges.len() {
        coloring.add(edge);
    }
    coloring.even_out();
    coloring.color_of.into_iter().flatten().collect()
}

struct Coloring {
    colors: usize,
    /// The parts of vertices at the two ends of each edge.
    ends: Vec<[usize; 2]>,
    color_of: Vec<Option<usize>>,
    /// For each part and colour the edge there.
    at: Vec<Vec<Option<usize>>>,
}

impl Coloring {
    fn new(edges: &[Edge], colors: usize) -> Self {
        let mut parts = 0;
        let mut split = |vertices: Vec<usize>| -> Vec<usize> {
            let count = vertices.iter().max().map_or(0, |last| last + 1);
            let mut current = vec![(0, 0); count];
            let assign = vertices.into_iter().map(|vertex| {
                let (part, used) = &mut current[vertex];
                if *used % colors == 0 {
                    *part = parts;
                    parts += 1;
                }
                *used += 1;
                *part
            });
            assign.collect()
        };
        let left = split(edges.iter().map(|edge| edge.0).collect());
        let right = split(edges.iter().map(|edge| edge.1).collect());
        let ends = left.into_iter().zip(right).map(|(l, r)| [l, r]).collect();
        Self {
            colors,
            ends,
            color_of: vec![None; edges.len()],
            at: vec![vec![None; colors]; parts],
        }
    }

    /// Colours one more edge, after swapping two colours along a path where its ends have no free
    /// colour in common.
    fn add(&mut self, edge: usize) {
        let [left, right] = self.ends[edge];
        let free = |part: usize| (0..self.colors).find(|color| self.at[part][*color].is_none());
        let common = (0..self.colors)
            .find(|color| self.at[left][*color].is_none() && self.at[right][*color].is_none());
        let color = match (common, free(left), free(right)) {
            (Some(color), _, _) => color,
            (None, Some(of_left), Some(of_right)) => {
                let path = self.path(right, of_left, of_right);
                self.swap(&path, of_left, of_right);
                of_left
            }
            _ => unreachable!("a part has at most as many edges as there are colours"),
        };
        self.paint(edge, color);
    }

    fn paint(&mut self, edge: usize, color: usize) {
        self.color_of[edge] = Some(color);
        for part in self.ends[edge] {
            self.at[part][color] = Some(edge);
        }
    }

    /// The edges of the path that leaves a part with colour `first` and alternates with `second`.
    fn path(&self, mut part: usize, first: usize, second: usize) -> Vec<usize> {
        let (mut next, mut other) = (first, second);
        let mut path = Vec::new();
        while let Some(edge) = self.at[part][next] {
            path.push(edge);
            let [left, right] = self.ends[edge];
            part = if part == left { right } else { left };
            (next, other) = (other, next);
        }
        path
    }

    fn swap(&mut self, path: &[usize], one: usize, other: usize) {
        for edge in path {
            for part in self.ends[*edge] {
                self.at[part][one] = None;
                self.at[part][other] = None;
            }
        }
        for edge in path {
            let swapped = match self.color_of[*edge] {
                Some(color) if color == one => other,
                _ => one,
            };
            self.paint(*edge, swapped);
        }
    }

    /// Makes all colours of one size, within one: a path that begins and ends with the larger colour
    /// gives one edge to the smaller one.
    fn even_out(&mut self) {
        let mut sizes = vec![0; self.colors];
        self.color_of.iter().flatten().for_each(|c| sizes[*c] += 1);
        loop {
            let by_size = |color: &usize| sizes[*color];
            let (Some(large), Some(small)) = (
                (0..self.colors).max_by_key(by_size),
                (0..self.colors).min_by_key(by_size),
            ) else {
                return;
            };
            if sizes[large] <= sizes[small] + 1 {
                return;
            }
            let begins =
                |part: &usize| self.at[*part][large].is_some() && self.at[*part][small].is_none();
            let mut paths = (0..self.at.len())
                .filter(begins)
                .map(|part| self.path(part, large, small));
            let Some(path) = paths.find(|path| path.len() % 2 == 1) else {
                return;
            };
            self.swap(&path, large, small);
            sizes[large] -= 1;
            sizes[small] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use core_model::rng::rng;
    use rand::RngExt;

    use super::*;

    /// The largest difference between two colours at one vertex, on the left, on the right, and over all.
    fn differences(edges: &[Edge], of: &[usize], colors: usize) -> [usize; 3] {
        let largest = |vertex: &dyn Fn(&Edge) -> usize| {
            let count = edges.iter().map(vertex).max().unwrap_or(0) + 1;
            let mut at = vec![vec![0; colors]; count];
            for (edge, color) in edges.iter().zip(of) {
                at[vertex(edge)][*color] += 1;
            }
            let spread = |counts: &Vec<usize>| {
                let (most, least) = (counts.iter().max(), counts.iter().min());
                most.unwrap_or(&0) - least.unwrap_or(&0)
            };
            at.iter().map(spread).max().unwrap_or(0)
        };
        [
            largest(&|edge| edge.0),
            largest(&|edge| edge.1),
            largest(&|_| 0),
        ]
    }

    #[test]
    fn every_vertex_meets_every_colour_equally_often_within_one() {
        for index in 0..60 {
            let mut draws = rng(0, "random bipartite graphs", index);
            let (lefts, rights) = (draws.random_range(1..7), draws.random_range(1..30));
            let (colors, count) = (draws.random_range(1..25), draws.random_range(1..400));
            let edges: Vec<Edge> = (0..count)
                .map(|_| (draws.random_range(0..lefts), draws.random_range(0..rights)))
                .collect();
            let colored = equitable(&edges, colors);
            assert_eq!(colored.len(), edges.len());
            let differences = differences(&edges, &colored, colors);
            assert!(
                differences.iter().all(|difference| *difference <= 1),
                "graph {index}: {differences:?}"
            );
        }
    }
}
