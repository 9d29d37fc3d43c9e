//! `attention.json`: cross-attention maps of tokens for the report page.

use serde_json::{Value, json};

use crate::common::{Finished, Sandbox, core_eval, finished};

#[test]
fn attention_maps_of_the_longest_prompt_are_kept_for_the_report() {
    let Finished { sandbox, printed } = finished();
    assert!(printed.contains("6 sets of attention maps"), "{printed}");
    let file: Value = serde_json::from_str(&sandbox.read("results/small/attention.json")).unwrap();
    let prompt = &file["prompts"][0];
    assert_eq!(prompt["prompt"], "a red {} on the beach");
    assert_eq!(prompt["concept"], "spotted-dog");
    let tokens = json!(["a", "red", "S*", "on", "the", "beach"]);
    assert_eq!(prompt["tokens"], tokens);
    let rows = prompt["rows"].as_array().unwrap();
    let variants: Vec<&Value> = rows.iter().map(|row| &row["variant"]).collect();
    let trained = ["CoRe", "no rescaling", "no terms", "CoRe again"];
    assert_eq!(
        variants[..2],
        [&Value::Null, &Value::Null],
        "class word and sibling word"
    );
    assert_eq!(variants[2..], trained);
    assert!(
        rows[0]["name"]
            .as_str()
            .unwrap()
            .starts_with("class word: ")
    );
    // The class word's own tokens are those that it is compared with; the concept has no counterpart.
    assert_eq!(rows[0]["cosines"], json!([1.0, 1.0, null, 1.0, 1.0, 1.0]));
    assert_eq!(rows[2]["maps"], rows[5]["maps"], "two names of one run");
    assert_ne!(rows[2]["maps"], rows[4]["maps"]);
    for token in 0..6 {
        // One scale for a token: some method has its lowest and some its highest value.
        let maps = rows
            .iter()
            .map(|row| row["maps"][token].as_str().unwrap().to_string());
        let maps: Vec<String> = maps.collect();
        assert!(
            maps.iter()
                .all(|map| map.len() == maps[0].len() && map.len() >= 4)
        );
    }
    let page: Value = serde_json::from_str(&sandbox.read("results/small/summary.json")).unwrap();
    assert_eq!(page["attention"], file["prompts"]);
}

#[test]
fn a_prompt_of_ones_own_is_added_to_the_maps_and_a_page_of_tables_alone_says_what_is_missing() {
    let sandbox = Sandbox::finished();
    let run = |arguments: &[&str]| {
        let mut command = core_eval();
        command
            .arg(arguments[0])
            .arg(sandbox.path(arguments[1]))
            .args(&arguments[2..]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let choice = ["--prompt", "a green {}", "--concept", "striped-cup"];
    let printed = run(&[&["figures", "results/small"], &choice[..]].concat());
    assert!(printed.contains("attention.json"), "{printed}");
    run(&["report", "results/small"]);
    let page: Value = serde_json::from_str(&sandbox.read("results/small/summary.json")).unwrap();
    let prompts = page["attention"].as_array().unwrap();
    let prompts: Vec<&Value> = prompts.iter().map(|of| &of["prompt"]).collect();
    assert_eq!(prompts, ["a red {} on the beach", "a green {}"]);

    std::fs::remove_file(sandbox.path("results/small/attention.json")).unwrap();
    let printed = run(&["report", "results/small"]);
    assert!(printed.contains("missing: No attention.json"), "{printed}");
    sandbox.write("results/small/attention.json", "{\"prompts\": 3}");
    let mut command = core_eval();
    command.arg("report").arg(sandbox.path("results/small"));
    let message = Sandbox::failure(command);
    assert!(
        message.contains("attention.json") && message.contains("remove it"),
        "{message}"
    );
}
