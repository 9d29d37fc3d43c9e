//! `core-eval figures`: figures and tables of a results folder, whole or in part.

use std::collections::BTreeMap;

use core_eval::report::{ALL_CONCEPTS, SummaryRow, Verdict, read_rows};

use crate::common::{Sandbox, checkout, copy, core_eval};

/// What `core-eval figures FOLDER ARGS` prints.
fn figures(sandbox: &Sandbox, folder: &str, args: &[&str]) -> String {
    let mut command = core_eval();
    let output = command
        .arg("figures")
        .arg(sandbox.path(folder))
        .args(args)
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn failure(sandbox: &Sandbox, folder: &str, args: &[&str]) -> String {
    let mut command = core_eval();
    command.arg("figures").arg(sandbox.path(folder)).args(args);
    Sandbox::failure(command)
}

#[test]
fn figures_and_tables_are_drawn_again_with_the_same_bytes() {
    let sandbox = Sandbox::finished();
    let mut before = sandbox.files("results/small");
    figures(&sandbox, "results/small", &[]);
    let after = sandbox.files("results/small");
    assert_eq!(before.len(), after.len());
    for (path, bytes) in &after {
        assert!(
            before.remove(path).as_ref() == Some(bytes),
            "{} changed",
            path.display()
        );
    }
}

#[test]
fn tables_alone_give_plots_and_say_what_is_left_out() {
    let sandbox = Sandbox::finished();
    for file in [
        "scores.csv",
        "summary.csv",
        "checks.csv",
        "tokens.csv",
        "curves.csv",
        "protocol.json",
    ] {
        let text = sandbox.read(&format!("results/small/{file}"));
        sandbox.write(&format!("alone/{file}"), &text);
    }
    let printed = figures(&sandbox, "alone", &[]);
    for (what, expected) in [
        ("grids: no image is there", true),
        ("losses: only the weighted total", true),
        ("overview", false),
    ] {
        assert_eq!(printed.contains(what), expected, "{what}: {printed}");
    }
    for file in [
        "figures/tokens.svg",
        "figures/forest.png",
        "figures/tradeoff.svg",
        "table.md",
    ] {
        let [ours, whole] = ["alone", "results/small"]
            .map(|folder| std::fs::read(sandbox.path(folder).join(file)).unwrap());
        assert!(ours == whole, "{file}");
    }
    assert!(sandbox.path("alone/figures/losses.svg").is_file());
}

#[test]
fn the_forest_plot_shows_the_verdicts_of_the_summary() {
    let sandbox = Sandbox::new();
    copy(
        &checkout().join("results/reference/ablation"),
        &sandbox.path("ablation"),
    );
    figures(&sandbox, "ablation", &[]);
    for suffix in ["", "-core"] {
        let summary = sandbox.path(&format!("ablation/summary{suffix}.csv"));
        let rows: Vec<SummaryRow> = read_rows(&summary).unwrap();
        let rows = rows.iter().filter(|row| row.concept == ALL_CONCEPTS);
        let compared: Vec<&SummaryRow> = rows.filter(|row| row.difference.is_some()).collect();
        let excludes_zero = |row: &&&SummaryRow| {
            row.difference_low.unwrap() > 0.0 || row.difference_high.unwrap() < 0.0
        };
        let shown = compared.iter().filter(excludes_zero).count();
        assert!(0 < shown && shown < compared.len(), "both verdicts occur");
        for row in &compared {
            let shows = row.verdict() != Some(Verdict::NoDifferenceShown);
            assert_eq!(shows, excludes_zero(&row));
        }
        let svg = sandbox.read(&format!("ablation/figures/forest{suffix}.svg"));
        let marks = |element: &str, fill: &str| {
            let lines = svg.lines().filter(|line| line.starts_with(element));
            lines.filter(|line| line.contains(fill)).count()
        };
        // A hollow point is a disc with a white one in it; an arrow is a filled point outside the panel.
        let hollow = marks("<circle", "fill=\"#FFFFFF\"");
        let filled = marks("<circle", "fill=\"#") - 2 * hollow + marks("<polygon", "fill=\"#");
        assert_eq!(
            (hollow, filled),
            (compared.len() - shown, shown),
            "{suffix}"
        );
        for row in compared {
            let first = row.variant.split(' ').next().unwrap();
            assert!(svg.contains(first), "{first} is text");
        }
    }
}

#[test]
fn a_prompt_is_compared_in_every_method_with_attention_maps() {
    let sandbox = Sandbox::finished();
    let printed = figures(
        &sandbox,
        "results/small",
        &[
            "--prompt",
            "a green {}",
            "--concept",
            "striped-cup",
            "--sibling",
            "beach",
        ],
    );
    assert!(printed.contains("tokens-a-green-s.png"), "{printed}");
    let svg = sandbox.read("results/small/figures/tokens-a-green-s.svg");
    for text in [
        "striped-cup",
        "class word",
        "sibling word:",
        "beach",
        "CoRe again",
        "no terms",
        "green",
    ] {
        assert!(svg.contains(text), "{text}");
    }
    // Class word, sibling and four trained variants, each with an image and maps of a, green and S*.
    let images = svg.matches("<image ").count();
    let words = ["a", "green", "S*"].len();
    assert!(images >= 6 * (1 + words), "{images} images");
    assert_eq!(images % 6, 0, "{images} images");
}

#[test]
fn without_runs_a_prompt_is_taken_from_the_table_or_refused() {
    let sandbox = Sandbox::finished();
    std::fs::remove_dir_all(sandbox.path("results/small/runs")).unwrap();
    let known = figures(&sandbox, "results/small", &["--prompt", "a photo of a {}"]);
    for part in [
        "tokens-a-photo-of-a-s.svg",
        "without attention maps",
        "the run of `CoRe` is gone",
    ] {
        assert!(known.contains(part), "{part}: {known}");
    }
    let message = failure(&sandbox, "results/small", &["--prompt", "a green {}"]);
    for part in [
        "`a green {}` is none of the prompts in tokens.csv",
        "the run of `CoRe` is gone",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = failure(&sandbox, "results/small", &["--prompt", "a dog"]);
    assert!(message.contains("has no {}"), "{message}");
    let message = failure(&sandbox, "results/small", &["--variant", "LoRA"]);
    assert!(
        message.contains("no variant `LoRA`") && message.contains("no terms"),
        "{message}"
    );
}

#[test]
fn images_that_are_gone_leave_empty_places_and_one_line() {
    let sandbox = Sandbox::finished();
    std::fs::remove_dir_all(sandbox.path("results/small/images/no terms")).unwrap();
    let printed = figures(&sandbox, "results/small", &[]);
    assert!(printed.contains("4 of 20 images are gone"), "{printed}");
    let svg = sandbox.read("results/small/figures/grid-spotted-dog.svg");
    assert_eq!(
        svg.matches("no image").count(),
        2,
        "two prompts of one variant"
    );
}

#[test]
fn tables_of_another_version_are_refused_by_name_and_nothing_is_lost() {
    for file in ["summary.csv", "tokens.csv", "scores.csv"] {
        let sandbox = Sandbox::finished();
        let name = format!("results/small/{file}");
        let other = sandbox.read(&name).replacen("variant,", "method,", 1);
        sandbox.write(&name, &other);
        let before: BTreeMap<_, _> = sandbox.files("results/small");
        let mut command = core_eval();
        let output = command
            .arg("figures")
            .arg(sandbox.path("results/small"))
            .output()
            .unwrap();
        assert!(!output.status.success(), "{file}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            message.contains(file) && message.contains("again"),
            "{message}"
        );
        assert!(sandbox.files("results/small") == before, "{file}");
    }
}

#[test]
fn hostile_names_stay_text_in_every_file() {
    let sandbox = Sandbox::new();
    copy(
        &checkout().join("results/reference/ablation"),
        &sandbox.path("ablation"),
    );
    let hostile = "<img onerror=x>|&$_{1}";
    for file in [
        "scores.csv",
        "summary.csv",
        "checks.csv",
        "tokens.csv",
        "curves.csv",
    ] {
        let name = format!("ablation/{file}");
        let text = sandbox
            .read(&name)
            .replace("without rescaling,", &format!("{hostile},"));
        sandbox.write(&name, &text);
    }
    figures(&sandbox, "ablation", &[]);
    for figure in ["forest", "tradeoff", "losses", "norm", "tokens"] {
        let svg = sandbox.read(&format!("ablation/figures/{figure}.svg"));
        assert!(!svg.contains("<img"), "{figure}");
        assert!(svg.contains("&lt;img"), "{figure}");
        assert!(svg.contains("onerror=x&gt;|&amp;$_{1}"), "{figure}");
    }
    let markdown = sandbox.read("ablation/table.md");
    assert!(
        markdown.contains("| &lt;img onerror=x>\\|&$_{1} |"),
        "{markdown}"
    );
    assert!(!markdown.contains("<img"), "{markdown}");
    let latex = sandbox.read("ablation/table.tex");
    let escaped = "\\textless{}img onerror=x\\textgreater{}|\\&\\$\\_\\{1\\} &";
    assert!(latex.contains(escaped), "{latex}");
}
