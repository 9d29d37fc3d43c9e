//! Properties of images of people.

use core_model::rng::rng;
use image::imageops::flip_horizontal;

use super::super::tests::difference;
use super::super::{Background, Beard, Color, Hair, Mark, Rendering, Style, render};
use super::*;

fn some_face() -> Face {
    Face {
        skin: 1,
        hair: Hair::Cropped,
        hair_color: 1,
        width: 1.0,
        height: 1.0,
        jaw: 0.8,
        iris: 1,
        eyes: 1.15,
        gap: 1.0,
        brows: 1.0,
        brow_tilt: 0.0,
        nose: 0,
        nose_length: 1.0,
        mouth: 1.0,
        lips: 0,
        ears: 1.0,
        beard: Beard::None,
        mark: Mark::None,
        mark_at: [0.3, 0.2],
    }
}

fn some_view(style: Style, yaw: f32) -> View {
    let mut generator = rng(0, "portrait", 0);
    let view = View::portrait(&mut generator, style, Background::Plain, None);
    View {
        lean: 0.0,
        shift: [0.0, 6.0],
        size: 1.5,
        pose: Pose {
            yaw,
            ..Pose::default()
        },
        ..view
    }
}

fn drawn(face: &Face, view: &View) -> Rendering {
    render(&face.clone().into(), view)
}

#[test]
fn a_head_turned_to_the_other_side_is_the_mirror_image() {
    for hair in Hair::ALL.iter().filter(|hair| **hair != Hair::Parted) {
        let face = Face {
            hair: *hair,
            beard: Beard::Full,
            mark: Mark::Freckles,
            ..some_face()
        };
        for yaw in [0.2, 0.5, 0.8, 1.0] {
            let view = |sign: f32| View {
                lean: 4.0 * sign,
                shift: [2.0 * sign, 6.0],
                pose: Pose {
                    light_from: 0.7 * sign,
                    smile: 0.8,
                    ..some_view(Style::Cartoon, sign * yaw).pose
                },
                ..some_view(Style::Cartoon, yaw)
            };
            let [right, left] = [1.0, -1.0].map(|sign| drawn(&face, &view(sign)).image);
            let mirrored = difference(&right, &flip_horizontal(&left));
            assert!(mirrored < 0.6, "{hair:?} {yaw} {mirrored}");
            assert!(
                difference(&right, &left) > 10.0 * mirrored,
                "{hair:?} {yaw}"
            );
        }
    }
}

#[test]
fn every_number_of_a_person_changes_a_frontal_image() {
    let face = some_face();
    let marked = Face {
        mark: Mark::Mole,
        ..face.clone()
    };
    let with = |change: fn(&mut Face)| {
        let mut other = marked.clone();
        change(&mut other);
        other
    };
    let mut others = vec![
        with(|face| face.skin = 2),
        with(|face| face.hair_color = 3),
        with(|face| face.width = 1.1),
        with(|face| face.height = 1.1),
        with(|face| face.jaw = 0.6),
        with(|face| face.iris = 2),
        with(|face| face.eyes = 1.35),
        with(|face| face.gap = 1.15),
        with(|face| face.brows = 1.4),
        with(|face| face.brow_tilt = 0.2),
        with(|face| face.nose = 2),
        with(|face| face.nose_length = 1.2),
        with(|face| face.mouth = 1.2),
        with(|face| face.lips = 1),
        with(|face| face.ears = 1.3),
        with(|face| face.mark_at[0] = -0.3),
        with(|face| face.mark_at[1] = 0.4),
    ];
    others.extend(Beard::ALL[1..].iter().map(|beard| Face {
        beard: *beard,
        ..marked.clone()
    }));
    others.extend([Mark::None, Mark::Freckles, Mark::Scar].map(|mark| Face {
        mark,
        ..marked.clone()
    }));
    let view = some_view(Style::Photo, 0.0);
    let plain = drawn(&marked, &view).image;
    for other in others {
        let change = difference(&plain, &drawn(&other, &view).image);
        assert!(change > 0.1, "{change} {other:?}");
    }
}

#[test]
fn hair_styles_differ_from_each_other_in_every_turn() {
    for yaw in [0.0, 0.5, 1.0] {
        let view = some_view(Style::Photo, yaw);
        let styles = Hair::ALL.iter().map(|hair| Face {
            hair: *hair,
            ..some_face()
        });
        let images: Vec<_> = styles.map(|face| drawn(&face, &view).image).collect();
        for (index, image) in images.iter().enumerate() {
            for (other, earlier) in images[..index].iter().enumerate() {
                let change = difference(image, earlier);
                assert!(change > 1.5, "{yaw} {other} {index} {change}");
            }
        }
    }
}

#[test]
fn the_mask_holds_the_eyes_in_every_turn() {
    let other = Face {
        iris: 2,
        ..some_face()
    };
    for step in -10..=10 {
        let view = some_view(Style::Photo, step as f32 / 10.0);
        let [first, second] = [some_face(), other.clone()].map(|face| drawn(&face, &view));
        assert_eq!(first.mask, second.mask);
        let mut changed = 0;
        for (x, y, pixel) in first.image.enumerate_pixels() {
            if pixel != second.image.get_pixel(x, y) {
                assert_eq!(first.mask.get_pixel(x, y).0, [255], "{step}: {x}, {y}");
                changed += 1;
            }
        }
        // From the side one eye of about four by three pixels is left.
        assert!(changed >= 8, "{step}: {changed}");
    }
}

#[test]
fn what_captions_say_of_people_is_seen_in_every_style() {
    for style in Style::ALL {
        let view = some_view(*style, 0.2);
        let plain = drawn(&some_face(), &view).image;
        let change = |view: &View| difference(&plain, &drawn(&some_face(), view).image);
        for worn in Accessory::ALL {
            let dressed = View {
                accessory: Some(*worn),
                ..view.clone()
            };
            let change = change(&dressed);
            assert!(change > 1.5, "{style:?} {worn:?} {change}");
        }
        let posed = |pose: Pose| View {
            pose,
            ..view.clone()
        };
        for clothes in Color::ALL.iter().filter(|color| **color != Color::Blue) {
            let change = change(&posed(Pose {
                clothes: *clothes,
                ..view.pose.clone()
            }));
            assert!(change > 0.8, "{style:?} {clothes:?} {change}");
        }
        for smile in [-0.8, 0.8] {
            let change = change(&posed(Pose {
                smile,
                ..view.pose.clone()
            }));
            assert!(change > 0.2, "{style:?} {smile} {change}");
        }
    }
}

#[test]
fn a_head_fills_most_of_the_image_and_leaves_the_background_at_a_side() {
    for index in 0..200 {
        let mut generator = rng(0, "size", index);
        let face = Face::sample(&mut generator);
        let view = View::sample(&mut generator, &face.clone().into());
        let mask = drawn(&face, &view).mask;
        let share = mask.pixels().filter(|pixel| pixel.0[0] > 127).count() as f64 / 4096.0;
        assert!((0.25..0.75).contains(&share), "{index} {share}");
        let edges = [0, 63].map(|column| mask.get_pixel(column, 20).0);
        assert!(edges.contains(&[0]), "{index}");
    }
}
