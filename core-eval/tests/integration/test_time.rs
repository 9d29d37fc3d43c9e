//! Variants whose embedding is optimised for every prompt before its images are generated.

use crate::common::Sandbox;

/// What a variant says to be optimised.
const TEST_TIME: &str = "test_time = { steps = 3, learning_rate = 1e-2 }";

/// The small experiment in which "CoRe again" is CoRe with test-time optimisation.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let again = "name = \"CoRe again\"\n";
    sandbox.edit(again, &format!("{again}{TEST_TIME}\n"));
    sandbox
}

#[test]
fn a_variant_with_test_time_optimisation_shares_the_run_and_draws_other_images() {
    let sandbox = sandbox();
    let dry = sandbox
        .command("results")
        .arg("--dry-run")
        .output()
        .unwrap();
    let dry = String::from_utf8(dry.stdout).unwrap();
    // Two concepts with two prompts each.
    let line = "4 optimisations of an embedding for a prompt, about ";
    assert!(dry.contains(line), "{dry}");

    let printed = sandbox.run("results");
    // Three recipes, two concepts: the optimised variant trains nothing of its own.
    assert!(
        printed.contains("6 runs trained, 40 images generated"),
        "{printed}"
    );
    let source = |variant: &str| -> serde_json::Value {
        let file = format!("results/small/images/{variant}/spotted-dog/0/source.json");
        serde_json::from_str(&sandbox.read(&file)).unwrap()
    };
    let (plain, optimised) = (source("CoRe"), source("CoRe again"));
    assert_eq!(plain["run"], optimised["run"]);
    assert_eq!(plain["test_time"], serde_json::Value::Null);
    assert_eq!(optimised["test_time"]["steps"], 3);
    let image = |variant: &str, prompt: usize| {
        let file = format!("results/small/images/{variant}/spotted-dog/0/{prompt}/00000.png");
        std::fs::read(sandbox.path(&file)).unwrap()
    };
    for prompt in 0..2 {
        assert_ne!(image("CoRe", prompt), image("CoRe again", prompt));
    }
    // The embedding of the run is that of the variant without optimisation alone.
    for table in ["tokens.csv", "curves.csv"] {
        let text = sandbox.read(&format!("results/small/{table}"));
        assert!(text.contains("CoRe,"), "{table}");
        assert!(!text.contains("CoRe again,"), "{table}");
    }

    // Another rate gives other images, and trains nothing.
    let before = image("CoRe again", 0);
    sandbox.edit("learning_rate = 1e-2 }", "learning_rate = 2e-2 }");
    let printed = sandbox.run("results");
    assert!(
        printed.contains("networks that ran: 8 images generated"),
        "{printed}"
    );
    assert_ne!(image("CoRe again", 0), before);
}

#[test]
fn test_time_optimisation_that_makes_no_sense_is_refused_with_the_reason() {
    for (from, to, parts) in [
        (
            "untuned = true\n",
            format!("untuned = true\n{TEST_TIME}\n"),
            &["class word", "no learned embedding"][..],
        ),
        (
            "remove = [\"context_embedding\", \"context_attention\"]\n",
            format!("remove = [\"context_embedding\", \"context_attention\"]\n{TEST_TIME}\n"),
            &["no terms", "`test_time`", "compare two prompts"],
        ),
        (
            "name = \"CoRe\"\n",
            "name = \"CoRe\"\ntest_time = { steps = 0, learning_rate = 1e-2 }\n".into(),
            &["CoRe", "`test_time.steps` is 0"],
        ),
        (
            "name = \"CoRe\"\n",
            "name = \"CoRe\"\ntest_time = { steps = 1, learning_rate = nan }\n".into(),
            &["CoRe", "`test_time.learning_rate` is NaN"],
        ),
        (
            "name = \"CoRe\"\n",
            "name = \"CoRe\"\ntest_time = { steps = 1 }\n".into(),
            &["learning_rate"],
        ),
        (
            "name = \"no terms\"\n",
            format!("name = \"no terms\"\n{TEST_TIME}\n"),
            &["no terms", "compare two prompts"],
        ),
    ] {
        let sandbox = Sandbox::new();
        sandbox.edit(from, &to);
        let message = Sandbox::failure(sandbox.command("results"));
        for part in parts {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!sandbox.path("results").exists(), "{message}");
    }
}

#[test]
fn a_claim_about_the_embedding_of_an_optimised_variant_is_refused() {
    let sandbox = Sandbox::new();
    let name = "name = \"CoRe again\"\n";
    sandbox.edit(name, &format!("{name}{TEST_TIME}\n"));
    sandbox.edit("variant = \"no terms\"", "variant = \"CoRe again\"");
    let message = Sandbox::failure(sandbox.command("results"));
    for part in ["the norm grows", "CoRe again", "`test_time`"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_prompt_that_names_the_concept_twice_cannot_be_optimised_for() {
    let sandbox = sandbox();
    let prompts = sandbox.read("prompts.csv");
    sandbox.write(
        "prompts.csv",
        &(prompts + "animate,plain,a {} beside a {}\n"),
    );
    let message = Sandbox::failure(sandbox.command("results"));
    for part in ["prompts.csv", "CoRe again", "2 places"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}
