//! Every recipe, run and prompt file in experiments/ is what the program reads.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use core_model::tokenizer::Tokenizer;
use core_train::adapters::{Bypass, Neti};
use core_train::config::{ConceptConfig, Group, OptimizerKind, Recipe, RunConfig, parse};
use core_train::data::prompts::check_template;

fn experiments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments")
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(experiments().join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect();
    assert!(!files.is_empty(), "{folder}");
    files
}

/// A run with these stages on one of the shipped concepts.
fn with_stages(recipe: &Recipe, concept: &Path) -> RunConfig {
    let text = std::fs::read_to_string(concept).unwrap();
    let mut concept_config: ConceptConfig = toml::from_str(&text).unwrap();
    concept_config.images = concept.parent().unwrap().to_path_buf();
    recipe.run(0, "cpu", PathBuf::from("model").into(), concept_config)
}

#[test]
fn every_recipe_serves_both_groups() {
    for folder in ["recipes", "paper/recipes"] {
        for path in files(folder, "toml") {
            let recipe: Recipe = parse(&path).unwrap();
            for concept in ["spotted-dog", "striped-cup"] {
                let concept = experiments()
                    .join("concepts")
                    .join(concept)
                    .join("concept.toml");
                let config = with_stages(&recipe.clone().anchored(&path), &concept);
                let config = config.complete(&concept).unwrap();
                for stage in &config.stages {
                    assert_eq!(
                        stage.reads_templates(),
                        stage.regularization_prompts.is_some()
                    );
                }
            }
        }
    }
}

#[test]
fn the_recipes_of_other_methods_have_their_published_settings() {
    let recipe = |name: &str| -> Recipe {
        parse(&experiments().join(format!("paper/recipes/{name}.toml"))).unwrap()
    };
    let dreambooth = recipe("dreambooth");
    let [stage] = dreambooth.stages.as_slice() else {
        panic!("DreamBooth has one stage");
    };
    assert_eq!(dreambooth.rare_token.as_deref(), Some("sks"));
    let prior = stage.prior().unwrap();
    assert_eq!((prior.weight, prior.num_images), (1.0, 200));
    assert_eq!((stage.steps, stage.learning_rate), (800, 5e-6));
    assert_eq!(stage.optimizer.max_grad_norm, Some(1.0));
    let custom = recipe("custom-diffusion");
    let [stage] = custom.stages.as_slice() else {
        panic!("Custom Diffusion has one stage");
    };
    let prior = stage.prior().unwrap();
    assert_eq!((prior.weight, prior.num_images), (1.0, 200));
    assert_eq!(
        (stage.steps, stage.batch_size, stage.learning_rate),
        (500, 2, 4e-5)
    );
    assert!(stage.stop_first_token_gradient && stage.augmentation.is_some());
    assert_eq!(stage.optimizer.max_grad_norm, Some(1.0));
    let class = recipe("classdiffusion");
    assert_eq!(class.initializer, custom.initializer);
    let stage = &class.stages[0];
    assert_eq!((stage.steps, stage.learning_rate), (500, 2e-5));
    assert_eq!(stage.sentence(), Some("a photo of a {}"));
    let cross = recipe("cross-initialization");
    let stage = &cross.stages[0];
    assert_eq!(cross.num_vectors, Some(2));
    assert_eq!(
        (stage.steps, stage.batch_size, stage.learning_rate),
        (320, 8, 5e-3)
    );
    let inversion = recipe("textual-inversion-neutral");
    let stage = &inversion.stages[0];
    let passes = stage.steps * stage.gradient_accumulation_steps;
    assert_eq!((passes, stage.learning_rate), (12_000, 2e-3));
    let attention = recipe("attndreambooth");
    let steps: Vec<_> = attention
        .stages
        .iter()
        .map(|s| (s.steps, s.learning_rate))
        .collect();
    assert_eq!(steps, [(60, 1e-3), (100, 2e-5), (500, 2e-6)]);
    assert_eq!(attention.phrase.as_deref(), Some("{token} {class}"));
}

#[test]
fn what_stands_for_the_concept_has_its_published_settings() {
    let stage = |name: &str| {
        let path = experiments().join(format!("paper/recipes/{name}.toml"));
        let Recipe { stages, .. } = parse(&path).unwrap();
        assert_eq!(stages.len(), 1, "{name}");
        stages[0].clone()
    };
    let neti = stage("neti");
    let batch = neti.batch_size * neti.gradient_accumulation_steps;
    assert_eq!((neti.steps, batch, neti.learning_rate), (1000, 8, 8e-3));
    assert_eq!(neti.neti(), Some(&Neti::default()));
    let Neti {
        hidden,
        frequencies,
        time_anchors,
        sigma_t,
        sigma_l,
        nested_dropout,
        bypass,
    } = Neti::default();
    assert_eq!((hidden, frequencies, time_anchors), (128, 1024, 10));
    assert_eq!((sigma_t, sigma_l, nested_dropout), (0.03, 2.0, 0.5));
    assert_eq!(bypass, Bypass::Strength(0.2));
    let direction = stage("directional-textual-inversion");
    assert_eq!(
        (
            direction.steps,
            direction.batch_size,
            direction.learning_rate
        ),
        (400, 4, 0.04)
    );
    let spherical = direction.optimizer.spherical_sgd();
    assert_eq!(direction.optimizer.kind, OptimizerKind::SphericalSgd);
    assert_eq!((spherical.kappa, spherical.beta), (1e-4, 0.0));
}

#[test]
fn the_papers_settings_are_the_papers() {
    let path = experiments().join("paper/recipes/core.toml");
    let Recipe { stages, .. } = parse(&path).unwrap();
    let [first, second] = stages.as_slice() else {
        panic!("CoRe has two stages");
    };
    assert_eq!(
        (first.steps, first.batch_size, first.learning_rate),
        (300, 6, 5e-3)
    );
    assert_eq!(
        (second.steps, second.batch_size, second.learning_rate),
        (1000, 4, 2e-6)
    );
    let window = first.rescale_window().unwrap();
    assert_eq!((window.from, window.to), (120, 180));
    let adamw = first.optimizer.adamw();
    assert_eq!(
        (adamw.betas, adamw.eps, adamw.weight_decay),
        ([0.9, 0.999], 1e-8, 1e-2)
    );
}

#[test]
fn the_example_run_has_the_stages_of_the_recipe_that_it_names() {
    let recipe = experiments().join("recipes/core.toml");
    let recipe: Recipe = parse::<Recipe>(&recipe).unwrap().anchored(&recipe);
    let config = RunConfig::load(&experiments().join("spotted-dog.toml"), &[]).unwrap();
    let concept = experiments().join("concepts/spotted-dog/concept.toml");
    let expected = with_stages(&recipe, &concept).complete(&concept).unwrap();
    assert_eq!(config.stages, expected.stages);
    assert_eq!(config.recipe, None, "what is kept says everything itself");
}

#[test]
fn what_a_run_file_says_wins_over_its_recipe_and_set_over_both() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = "phrase = \"{token} {class}\"\n[[stages]]\ntrain = [\"unet\"]\nsteps = 5\n\
                  batch_size = 1\nlearning_rate = 1e-3\nprompts = \"prompts.txt\"\n";
    std::fs::create_dir(folder.path().join("recipes")).unwrap();
    std::fs::write(folder.path().join("recipes/a.toml"), recipe).unwrap();
    std::fs::write(folder.path().join("recipes/prompts.txt"), "a {}").unwrap();
    let run = |keys: &str, sets: &[&str]| {
        let text = format!(
            "recipe = \"recipes/a.toml\"\n{keys}\n[model]\npath = \"m\"\n[concept]\n\
             name = \"tom\"\nsuper_category = \"cat\"\n"
        );
        let path = folder.path().join("run.toml");
        std::fs::write(&path, text).unwrap();
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_string()).collect();
        RunConfig::load(&path, &sets).unwrap()
    };
    let plain = run("", &[]);
    assert_eq!(plain.phrase().fill("a {}"), "a <tom> cat");
    assert_eq!(plain.stages[0].prompts.templates(), ["a {}"]);
    assert_eq!(run("phrase = \"{token}\"", &[]).phrase().words(), "<tom>");
    let set = run(
        "phrase = \"{token}\"",
        &["phrase=my {token}", "stages.0.steps=7"],
    );
    assert_eq!(set.phrase().words(), "my <tom>");
    assert_eq!(set.stages[0].steps, 7);
}

#[test]
fn the_example_run_is_complete_and_written_so_that_it_runs_again() {
    let path = experiments().join("spotted-dog.toml");
    let config = RunConfig::load(&path, &["stages.0.steps=7".to_string()]).unwrap();
    assert_eq!(config.stages[0].steps, 7);
    let folder =
        tempfile::tempdir_in(experiments().join("../target")).or_else(|_| tempfile::tempdir());
    let folder = folder.unwrap();
    let copy = folder.path().join("config.toml");
    std::fs::write(&copy, config.to_toml(folder.path()).unwrap()).unwrap();
    let again = RunConfig::load(&copy, &[]).unwrap();
    assert_eq!(again, config);
    // And what that writes is the same text.
    assert_eq!(
        again.to_toml(folder.path()).unwrap(),
        std::fs::read_to_string(&copy).unwrap()
    );
}

/// group, kind, prompt.
fn evaluation(file: &str) -> Vec<[String; 3]> {
    let mut reader = csv::Reader::from_path(experiments().join("prompts").join(file)).unwrap();
    assert_eq!(reader.headers().unwrap(), vec!["group", "kind", "prompt"]);
    let records = reader.records();
    records
        .map(|record| [0, 1, 2].map(|i| record.as_ref().unwrap()[i].to_string()))
        .collect()
}

#[test]
fn evaluation_prompts_are_none_of_the_regularisation_prompts() {
    for (folder, name, at_least) in [
        ("", "evaluation", 20),
        ("mini/", "evaluation", 16),
        ("mini/", "table3", 16),
    ] {
        let rows = evaluation(&format!("{folder}{name}.csv"));
        for group in [Group::Animate, Group::Inanimate] {
            let name = group.name();
            let file = format!("prompts/{folder}regularization-{name}.txt");
            let text = std::fs::read_to_string(experiments().join(file)).unwrap();
            let known: HashSet<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(known.len(), 100);
            known
                .iter()
                .for_each(|template| check_template(template).unwrap());
            let rows: Vec<_> = rows.iter().filter(|row| row[0] == name).collect();
            assert!(rows.len() >= at_least, "{folder}{name}: {}", rows.len());
            for [_, kind, prompt] in rows {
                check_template(prompt).unwrap();
                assert!(
                    !known.contains(prompt.as_str()),
                    "{prompt} is in both lists"
                );
                let kinds = ["plain", "background", "colour", "style", "action", "outfit"];
                assert!(kinds.contains(&kind.as_str()), "{kind}");
            }
        }
    }
}

#[test]
fn prompts_for_people_are_disjoint_lists_of_words_that_networks_know() {
    let rows = evaluation("mini/faces.csv");
    let count = |kind: &str| rows.iter().filter(|row| row[1] == kind).count();
    let kinds = [
        "plain",
        "background",
        "style",
        "outfit",
        "colour",
        "expression",
    ];
    assert_eq!(kinds.map(count), [2, 4, 3, 3, 2, 2]);
    assert!(rows.iter().all(|row| row[0] == Group::Animate.name()));

    let file = experiments().join("prompts/mini/regularization-faces.txt");
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let known: HashSet<String> = lines.map(String::from).collect();
    assert_eq!((rows.len(), known.len()), (16, 40));
    let asked: HashSet<String> = rows.into_iter().map(|[_, _, prompt]| prompt).collect();
    assert!(asked.is_disjoint(&known));

    let tokenizer = Tokenizer::from_dir(&experiments().join("../models/mini/tokenizer")).unwrap();
    for template in asked.union(&known) {
        check_template(template).unwrap();
        for word in template.replace("{}", "person").split(' ') {
            let is_new = ["person", "smiling", "frowning"].contains(&word);
            // Start, the word, end.
            let is_known = tokenizer.encode(word).length == 3;
            assert!(is_new || is_known, "{word} in {template}");
        }
    }
}

#[test]
fn wrong_keys_and_values_are_named_with_what_would_be_right() {
    let path = experiments().join("spotted-dog.toml");
    for (set, parts) in [
        ("stages.0.stesp=3", &["stesp", "steps"][..]),
        (
            "stages.0.train=['embeding']",
            &["embeding", "cross_attention_kv"],
        ),
        (
            "stages.0.regularizers.0.kind='context_embed'",
            &["context_embed", "context_attention"],
        ),
        (
            "stages.0.regularizers.0.formulation='code'",
            &["code", "reference_code"],
        ),
        ("stages.0.steps=0", &["stages.0.steps", "at least 1"]),
        (
            "stages.0.learning_rate=nan",
            &["stages.0.learning_rate", "above 0"],
        ),
        ("stages.0.rescale=true", &["{ from = STEP, to = STEP }"]),
        (
            "stages.0.rescale={from=9,to=9}",
            &["stages.0.rescale", "from < to"],
        ),
        (
            "stages.1.rescale={from=1,to=9}",
            &["stages.1.rescale", "does not train"],
        ),
        ("stages.0.prompts=['a photo']", &["a photo", "{}"]),
        ("stages.0.prompts=[]", &["stages.0.prompts", "no template"]),
        ("stages.0.prompts=3", &["one template per line"]),
        ("stages.0.prompts='absent.txt'", &["absent.txt"]),
        ("stages.1.name='embedding'", &["stages.1.name", "earlier"]),
        ("stages.0.optimizer.betas=[0.9,1.0]", &["optimizer.betas"]),
        (
            "stages.0.regularizers.1.weight=-1",
            &["stages.0.regularizers.1.weight", "0 or more"],
        ),
        (
            "concept.super_category=' '",
            &["concept.super_category", "empty"],
        ),
        ("concept.group='animal'", &["animal", "inanimate"]),
        ("concept.num_vectors=0", &["concept.num_vectors"]),
        ("validation.every=0", &["validation.every"]),
        ("model.variant='../a'", &["model.variant", "fp16"]),
        ("stages=[]", &["stages", "nothing to do"]),
    ] {
        let error = RunConfig::load(&path, &[set.to_string()])
            .unwrap_err()
            .to_string();
        for part in parts {
            assert!(error.contains(part), "{set}: {error}");
        }
    }
}
