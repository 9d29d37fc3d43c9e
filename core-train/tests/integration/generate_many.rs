//! `core-train generate` with several prompts, seeds and sizes, and what its images say of themselves.

use std::fs;
use std::path::Path;

use super::generate::{Command, fixture, text, write};

const PROMPTS: &str = "# two prompts\n\na red <robot>\n  a <robot>, seen from \"above\" \n";

/// Two steps on the tiny model.
fn drawn(words: &[&str]) -> Command {
    let command = Command::on_model(&["--steps", "2"])
        .with(words)
        .with_file("--save-latents", "latents.safetensors");
    command.run().unwrap_or_else(|error| panic!("{error}"));
    command
}

fn of_prompts(words: &[&str]) -> Command {
    let command = Command::on_model(&["--steps", "2"])
        .with(words)
        .with_file("--prompts", "prompts.txt")
        .with_file("--save-latents", "latents.safetensors");
    fs::write(command.path("prompts.txt"), PROMPTS).unwrap();
    command
}

/// The latents of every image.
fn latents(command: &Command) -> Vec<Vec<f32>> {
    let (values, shape) = command.latents("latents.safetensors");
    let size = shape[1..].iter().product();
    values.chunks(size).map(<[f32]>::to_vec).collect()
}

/// The text `parameters` of an image.
fn parameters(command: &Command, image: &str) -> String {
    let bytes = fs::read(command.path("images").join(image)).unwrap();
    let (start, end) = (
        b"tEXtparameters\0",
        bytes.windows(4).position(|w| w == b"IDAT"),
    );
    let at = bytes.windows(start.len()).position(|part| part == start);
    let at = at.unwrap_or_else(|| panic!("{image} has no text"));
    // The length of a chunk stands before its name, in big-endian order.
    let length = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
    let text = &bytes[at + 4..at + 4 + length];
    assert!(at + length < end.unwrap());
    String::from_utf8(text[b"parameters\0".len()..].to_vec()).unwrap()
}

#[test]
fn an_image_is_the_same_however_many_are_drawn() {
    let prompt = ["--prompt", "a red <robot>"];
    let one = |seed: &str, count: &str| {
        drawn(&[&prompt[..], &["--seed", seed, "--num-images", count]].concat())
    };
    let [first, second] = [one("7", "2"), one("3", "2")];
    let several = drawn(
        &[
            &prompt[..],
            &["--seed", "7", "--seed", "3", "--num-images", "2"],
        ]
        .concat(),
    );
    assert_eq!(
        latents(&several),
        [latents(&first), latents(&second)].concat()
    );
    assert_eq!(
        several.images(),
        ["00000.png", "00001.png", "00002.png", "00003.png"]
    );
    let bytes =
        |command: &Command, image: &str| fs::read(command.path("images").join(image)).unwrap();
    assert_eq!(bytes(&several, "00003.png"), bytes(&second, "00001.png"));
    assert_eq!(
        bytes(&several, "00000.png"),
        bytes(&one("7", "1"), "00000.png")
    );
}

#[test]
fn prompts_of_a_file_are_drawn_from_the_same_noise_and_listed() {
    let command = of_prompts(&["--seed", "1", "--seed", "2"]);
    command.run().unwrap();
    let alone = |prompt: &str| drawn(&["--prompt", prompt, "--seed", "1", "--seed", "2"]);
    let (first, second) = (
        alone("a red <robot>"),
        alone("a <robot>, seen from \"above\""),
    );
    assert_eq!(
        latents(&command),
        [latents(&first), latents(&second)].concat()
    );
    let list = fs::read_to_string(command.path("images/prompts.csv")).unwrap();
    let expected = "image,prompt\n00000.png,a red <robot>\n00001.png,a red <robot>\n\
                    00002.png,\"a <robot>, seen from \"\"above\"\"\"\n\
                    00003.png,\"a <robot>, seen from \"\"above\"\"\"\n";
    assert_eq!(list, expected);
    assert_eq!(command.images().len(), 5);
}

#[test]
fn width_and_height_are_those_of_the_image() {
    let size = |words: &[&str]| {
        let command = drawn(&[&["--prompt", "a <robot>"], words].concat());
        let image = image::open(command.path("images/00000.png")).unwrap();
        (image.width(), image.height())
    };
    assert_eq!(size(&["--width", "20", "--height", "12"]), (20, 12));
    let (width, height) = size(&[]);
    assert_eq!(size(&["--height", "10"]), (width, 10));
    // A part of the model's own size is drawn from the same noise as by name.
    let named = [width.to_string(), height.to_string()];
    let named = drawn(&[
        "--prompt",
        "a <robot>",
        "--width",
        &named[0],
        "--height",
        &named[1],
    ]);
    assert_eq!(latents(&named), latents(&drawn(&["--prompt", "a <robot>"])));
}

#[test]
fn images_say_prompt_seed_and_settings_as_the_web_ui_does() {
    let command = drawn(&[
        "--prompt",
        "a red <robot>",
        "--negative-prompt",
        "blue, grey",
    ])
    .with(&[
        "--seed",
        "5",
        "--num-images",
        "2",
        "--guidance-scale",
        "4.5",
    ]);
    command.run().unwrap();
    let expected = |number: usize| {
        format!(
            "a red <robot>\nNegative prompt: blue, grey\nSteps: 2, Sampler: PLMS, CFG scale: 4.5, Seed: 5, \
             Size: 16x16, Model: model, Image of seed: {number}, Embedding: robot, Version: core-train {}",
            env!("CARGO_PKG_VERSION")
        )
    };
    assert_eq!(parameters(&command, "00000.png"), expected(0));
    assert_eq!(parameters(&command, "00001.png"), expected(1));

    let command = drawn(&["--prompt", "a <robot>", "--scheduler", "dpmpp-2m"]);
    let text = parameters(&command, "00000.png");
    assert!(
        text.contains("\nNegative prompt: \nSteps: 2, Sampler: DPM++ 2M, CFG scale: 7.5, Seed: 0,"),
        "{text}"
    );
}

#[test]
fn images_from_given_noise_name_its_file_instead_of_a_seed() {
    let command = Command::on_model(&["--prompt", "a <robot>", "--steps", "1"])
        .with_file("--init-latents", "noise.safetensors");
    let values = (0..4 * 8 * 8).map(|i| (i as f32 * 0.7).sin()).collect();
    write(
        &command.path("noise.safetensors"),
        "latents",
        values,
        &[1, 4, 8, 8],
    );
    command.run().unwrap();
    let text = parameters(&command, "00000.png");
    assert!(
        text.contains("Initial latents: noise,") && !text.contains("Seed:"),
        "{text}"
    );
}

#[test]
fn wrong_values_are_refused_before_anything_is_written() {
    let prompt = ["--prompt", "a <robot>"];
    for (words, parts) in [
        (
            &["--width", "9"][..],
            &["--width is 9", "multiples of 2", "10"][..],
        ),
        (&["--height", "7"], &["--height", "8..=8192"]),
        (&["--width", "9000"], &["--width", "8192"]),
        (&["--width=-8"], &["--width"]),
        (&["--width", "wide"], &["--width", "invalid digit"]),
        (&["--seed=-1"], &["--seed"]),
        (&["--seed", "4", "--seed", "4"], &["--seed 4", "twice"]),
        (
            &["--prompts", "p.txt"],
            &["--prompt", "cannot be used with"],
        ),
        (
            &["--init-latents", "n.safetensors", "--seed", "1"],
            &["--init-latents", "--seed"],
        ),
        (
            &["--init-latents", "n.safetensors", "--width", "16"],
            &["--init-latents", "--width"],
        ),
    ] {
        let command = Command::on_model(&prompt).with(words);
        let error = command.error();
        for part in parts {
            assert!(error.contains(part), "{words:?}: {error}");
        }
        assert!(!command.path("images").exists(), "{words:?}");
    }
}

#[test]
fn files_of_prompts_that_cannot_be_used_are_named() {
    let with = |bytes: Option<&[u8]>| {
        let command = Command::new(&["--model", &text(&fixture("model"))])
            .with_file("--prompts", "prompts.txt");
        if let Some(bytes) = bytes {
            fs::write(command.path("prompts.txt"), bytes).unwrap();
        }
        let error = command.error();
        assert!(error.contains("prompts.txt"), "{error}");
        assert!(!command.path("images").exists());
        error
    };
    with(None);
    assert!(with(Some(b"# nothing\n\n")).contains("holds no prompts"));
    assert!(with(Some(b"a dog\n\xff\xff\n")).contains("UTF-8"));
    assert!(with(Some(b"\x89PNG\r\n\x1a\n")).contains("PNG"));
    // The second prompt is the one at fault, and nothing is drawn of the first.
    let long = format!("a <robot>\n{}<robot>\n", "red ".repeat(20));
    let command = Command::on_model(&[]).with_file("--prompts", "prompts.txt");
    fs::write(command.path("prompts.txt"), long).unwrap();
    assert!(command.error().contains("16 tokens"));
    assert!(!command.path("images").exists());
}

#[test]
fn the_list_of_an_earlier_call_never_stands_beside_other_images() {
    let command = of_prompts(&[]);
    command.run().unwrap();
    let list = |command: &Command| fs::read_to_string(command.path("images/prompts.csv"));
    let before = list(&command).unwrap();
    let out = text(&command.path("images"));
    let single = Command::on_model(&["--prompt", "a <robot>", "--steps", "1"]);
    let error = single.with(&["--out", &out]).error();
    assert!(
        error.contains("prompts.csv") || error.contains("--out"),
        "{error}"
    );
    assert_eq!(list(&command).unwrap(), before);
    // The same call again replaces images and list.
    command.run().unwrap();
    assert_eq!(list(&command).unwrap(), before);
    assert!(Path::new(&out).join("00001.png").exists());
}
