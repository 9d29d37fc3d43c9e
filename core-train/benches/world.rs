//! How long one scene of the mini world takes: pretraining renders every picture as it goes.

use core_model::rng::rng;
use core_train::world::{Face, Identity, Style, Thing, View, render};
use criterion::{Criterion, criterion_group, criterion_main};

fn scenes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("world");
    for style in Style::ALL {
        let scenes: Vec<(Identity, View)> = (0..64)
            .map(|index| {
                let mut generator = rng(0, "benchmark", index);
                let identity = Identity::from(Thing::sample(&mut generator));
                let view = View::sample(&mut generator, &identity);
                (
                    identity,
                    View {
                        style: *style,
                        ..view
                    },
                )
            })
            .collect();
        let mut turn = scenes.iter().cycle();
        group.bench_function(style.word(), |bencher| {
            bencher.iter(|| turn.next().map(|(identity, view)| render(identity, view)));
        });
    }
    let people: Vec<(Identity, View)> = (0..64)
        .map(|index| {
            let mut generator = rng(0, "benchmark person", index);
            let identity = Identity::from(Face::sample(&mut generator));
            let view = View::sample(&mut generator, &identity);
            (identity, view)
        })
        .collect();
    let mut turn = people.iter().cycle();
    group.bench_function("person", |bencher| {
        bencher.iter(|| turn.next().map(|(identity, view)| render(identity, view)));
    });
    group.finish();
}

criterion_group!(benches, scenes);
criterion_main!(benches);
