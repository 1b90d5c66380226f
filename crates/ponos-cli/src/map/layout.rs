//! Where the nodes of a drawing stand: layers from left to right, after Sugiyama.
//!
//! A node stands right of all that lead to it; edges that close a cycle count the other way round. An edge over several
//! layers has a bend in each, which takes part in the order. The order within a layer is improved by sweeps that put each
//! node at the mean place of its neighbours (barycentre), which leaves few crossings; then heights follow the same means.

use super::model::Map;

const SWEEPS: usize = 12;
const GAP_X: f64 = 56.0;
const GAP_Y: f64 = 14.0;
/// What a bend keeps free.
const BEND: f64 = 6.0;

/// A size or a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
}

/// Where everything stands.
#[derive(Debug)]
pub(super) struct Layout {
    /// The middle of the left side of each node.
    pub(super) nodes: Vec<Point>,
    /// For each edge of the map: the points it goes through between its nodes, from its start to its end.
    pub(super) bends: Vec<Vec<Point>>,
    pub(super) size: Point,
}

/// A node, or a bend, on its layer.
struct Place {
    height: f64,
    y: f64,
    left: Vec<usize>,
    right: Vec<usize>,
}

/// Places nodes of the given sizes.
pub(super) fn layout(map: &Map, sizes: &[Point]) -> Layout {
    let layer_of = layers(map);
    let count = layer_of.iter().max().map_or(0, |last| last + 1);
    let mut places: Vec<Place> =
        sizes.iter().map(|size| Place { height: size.y, y: 0.0, left: vec![], right: vec![] }).collect();
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (node, layer) in layer_of.iter().enumerate() {
        layers[*layer].push(node);
    }
    let ways: Vec<Vec<usize>> =
        map.edges.iter().map(|edge| way(edge.ends, &layer_of, &mut places, &mut layers)).collect();
    order(&mut layers, &places);
    heights(&layers, &mut places);

    let width = |layer: &Vec<usize>| {
        layer.iter().filter_map(|i| sizes.get(*i)).map(|size| size.x).fold(0.0, f64::max)
    };
    let mut x = GAP_Y;
    let mut columns = Vec::new();
    for layer in &layers {
        columns.push((x, width(layer)));
        x += width(layer) + GAP_X;
    }
    let top = places.iter().map(|place| place.y - place.height / 2.0).fold(f64::INFINITY, f64::min);
    let top = if top.is_finite() { top - GAP_Y } else { 0.0 };
    let bottom = places.iter().map(|place| place.y + place.height / 2.0).fold(top, f64::max) + GAP_Y;
    let bends = map.edges.iter().zip(ways).map(|(edge, way)| {
        let (from, to) = (layer_of[edge.ends.0], layer_of[edge.ends.1]);
        let steps = way.iter().enumerate().flat_map(|(step, place)| {
            let layer = if from < to { from + 1 + step } else { from - 1 - step };
            let (x, width) = columns[layer];
            let y = places[*place].y - top;
            let (enter, leave) = if from < to { (x, x + width) } else { (x + width, x) };
            [Point { x: enter, y }, Point { x: leave, y }]
        });
        // A column is as wide as its widest node: on its right side a way runs straight to the column's edge, so that it
        // passes behind no neighbour.
        let right_of = |node: usize| {
            let (x, width) = columns[layer_of[node]];
            Point { x: x + width, y: places[node].y - top }
        };
        let (first, last) =
            if from < to { (Some(right_of(edge.ends.0)), None) } else { (None, Some(right_of(edge.ends.1))) };
        first.into_iter().chain(steps).chain(last).collect()
    });
    let bends = bends.collect();
    let nodes = layer_of
        .iter()
        .enumerate()
        .map(|(node, layer)| Point { x: columns[*layer].0, y: places[node].y - top })
        .collect();
    Layout { nodes, bends, size: Point { x: x - GAP_X + GAP_Y, y: bottom - top } }
}

/// The layer of each node: the longest way to it; what nothing leads to stands just before what it leads to.
fn layers(map: &Map) -> Vec<usize> {
    let mut waits: Vec<usize> = vec![0; map.nodes.len()];
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); map.nodes.len()];
    for edge in map.edges.iter().filter(|edge| !edge.closes_cycle) {
        next[edge.ends.0].push(edge.ends.1);
        waits[edge.ends.1] += 1;
    }
    let roots: Vec<usize> = (0..waits.len()).filter(|node| waits[*node] == 0).collect();
    let mut layer = vec![0; map.nodes.len()];
    let mut ready = roots.clone();
    while let Some(node) = ready.pop() {
        for &to in &next[node] {
            layer[to] = layer[to].max(layer[node] + 1);
            waits[to] -= 1;
            if waits[to] == 0 {
                ready.push(to);
            }
        }
    }
    for root in roots {
        if let Some(nearest) = next[root].iter().map(|to| layer[*to]).min() {
            layer[root] = nearest - 1;
        }
    }
    layer
}

/// Joins two nodes over the layers between them, and answers the bends from the start to the end.
fn way(
    (from, to): (usize, usize),
    layer_of: &[usize],
    places: &mut Vec<Place>,
    layers: &mut [Vec<usize>],
) -> Vec<usize> {
    let forth = layer_of[from] < layer_of[to];
    let (left, right) = if forth { (from, to) } else { (to, from) };
    let mut way = Vec::new();
    let mut last = left;
    for layer in layers.iter_mut().take(layer_of[right]).skip(layer_of[left] + 1) {
        let bend = places.len();
        places.push(Place { height: BEND, y: 0.0, left: vec![last], right: vec![] });
        places[last].right.push(bend);
        layer.push(bend);
        way.push(bend);
        last = bend;
    }
    places[last].right.push(right);
    places[right].left.push(last);
    if !forth {
        way.reverse();
    }
    way
}

/// Sweeps to the right and to the left.
fn order(layers: &mut [Vec<usize>], places: &[Place]) {
    let mut rank = vec![0.0; places.len()];
    let note = |layer: &[usize], rank: &mut [f64]| {
        for (at, place) in layer.iter().enumerate() {
            rank[*place] = at as f64;
        }
    };
    for layer in layers.iter() {
        note(layer, &mut rank);
    }
    for sweep in 0..SWEEPS {
        let to_the_right = sweep % 2 == 0;
        let numbers: Vec<usize> = if to_the_right {
            (1..layers.len()).collect()
        } else {
            (0..layers.len().saturating_sub(1)).rev().collect()
        };
        for number in numbers {
            let mean = |place: usize| {
                let beside = if to_the_right { &places[place].left } else { &places[place].right };
                mean(beside.iter().map(|other| rank[*other])).unwrap_or(rank[place])
            };
            let mut keyed: Vec<(f64, usize)> =
                layers[number].iter().map(|place| (mean(*place), *place)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            layers[number] = keyed.into_iter().map(|(_, place)| place).collect();
            note(&layers[number], &mut rank);
        }
    }
}

/// Gives each place the mean height of its neighbours, as far as the order and the sizes allow.
fn heights(layers: &[Vec<usize>], places: &mut [Place]) {
    for sweep in 0..SWEEPS {
        for layer in layers {
            let wanted: Vec<f64> = layer
                .iter()
                .map(|place| {
                    let place = &places[*place];
                    let beside = place.left.iter().chain(&place.right);
                    let beside = mean(beside.map(|other| places[*other].y));
                    if sweep == 0 { 0.0 } else { beside.unwrap_or(place.y) }
                })
                .collect();
            let mut end = f64::NEG_INFINITY;
            for (place, wanted) in layer.iter().zip(&wanted) {
                let place = &mut places[*place];
                place.y = wanted.max(end + place.height / 2.0);
                end = place.y + place.height / 2.0 + GAP_Y;
            }
            // What was pushed down goes up again together.
            let off = mean(layer.iter().zip(&wanted).map(|(place, wanted)| places[*place].y - wanted));
            for place in layer {
                places[*place].y -= off.unwrap_or(0.0);
            }
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

#[cfg(test)]
mod tests {
    use super::super::model::{Map, Overlay, tests::system};
    use super::*;

    /// Applications that hear each other's events crosswise, with long ways, cycles and something alone.
    fn tangled() -> Map {
        let app = |i: usize| {
            let heard = [(i + 7) % 12, (i * 5 + 1) % 12, i / 2];
            let mut reactions: Vec<String> = heard.iter().map(|j| format!("thing-{j}.done")).collect();
            reactions.sort();
            reactions.dedup();
            (format!("app-{i}"), reactions, format!("thing-{i}.done"))
        };
        let apps: Vec<_> = (0..12).map(app).collect();
        Map::of(&system(&apps), &Overlay::default())
    }

    #[test]
    fn nothing_covers_anything_and_ways_lead_to_the_right() {
        let map = tangled();
        let sizes: Vec<Point> = (0..map.nodes.len())
            .map(|i| Point { x: 40.0 + (i % 7) as f64 * 20.0, y: 26.0 + (i % 2) as f64 * 16.0 })
            .collect();
        let placed = layout(&map, &sizes);
        let boxes: Vec<_> = placed
            .nodes
            .iter()
            .zip(&sizes)
            .map(|(at, size)| (at.x, at.x + size.x, at.y - size.y / 2.0, at.y + size.y / 2.0))
            .collect();
        let apart = |a: &(f64, f64, f64, f64), b: &(f64, f64, f64, f64)| {
            a.1 <= b.0 || b.1 <= a.0 || a.3 <= b.2 || b.3 <= a.2
        };
        for (i, one) in boxes.iter().enumerate() {
            assert!(boxes[i + 1..].iter().all(|other| apart(one, other)), "{i}: {one:?}");
            assert!(
                one.0 >= 0.0 && one.2 >= 0.0 && one.1 <= placed.size.x && one.3 <= placed.size.y,
                "{i}: {one:?}"
            );
        }
        assert!(map.edges.iter().any(|edge| edge.closes_cycle), "there is something to turn round");
        assert!(placed.bends.iter().any(|bends| bends.len() > 2), "there is a long way");
        for (edge, bends) in map.edges.iter().zip(&placed.bends) {
            let (from, to) = (boxes[edge.ends.0], boxes[edge.ends.1]);
            let turn = if edge.closes_cycle { -1.0 } else { 1.0 };
            let (start, end) = if edge.closes_cycle { (from.0, to.1) } else { (from.1, to.0) };
            let mut way = vec![start * turn];
            way.extend(bends.iter().map(|bend| bend.x * turn));
            way.push(end * turn);
            assert!(way.is_sorted(), "{way:?}");
            for bend in bends {
                let point = (bend.x, bend.x, bend.y, bend.y);
                assert!(boxes.iter().all(|node| apart(node, &point)), "{bend:?} lies behind a node");
            }
        }
    }

    #[test]
    fn order_follows_the_neighbours_so_that_parallel_ways_do_not_cross() {
        // Names in which the order of the alphabet is the wrong one on every second layer.
        let apps: Vec<_> = (0..6)
            .map(|i| (format!("app-{i}"), vec![format!("in-{}.done", 5 - i)], format!("out-{i}.done")))
            .collect();
        let map = Map::of(&system(&apps), &Overlay::default());
        let sizes = vec![Point { x: 50.0, y: 20.0 }; map.nodes.len()];
        let placed = layout(&map, &sizes);
        for one in &map.edges {
            for other in &map.edges {
                let y = |edge: &super::super::model::MapEdge| {
                    (placed.nodes[edge.ends.0].y, placed.nodes[edge.ends.1].y)
                };
                let same_layer = placed.nodes[one.ends.0].x == placed.nodes[other.ends.0].x;
                let ((a, b), (c, d)) = (y(one), y(other));
                assert!(!same_layer || (a - c) * (b - d) >= 0.0, "{} and {} cross", one.from, other.from);
            }
        }
    }
}
