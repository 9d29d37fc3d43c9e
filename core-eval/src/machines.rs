//! Whether runs were made on machines that need not compute the same bits.

use std::collections::BTreeSet;

use serde_json::Value;

/// A warning about runs of several instruction sets, kinds of devices or GPUs, given the content of their
/// `environment.json`; `None` where all are equal.
pub fn mixture<'a>(environments: impl Iterator<Item = &'a Value> + Clone) -> Option<String> {
    let device = |environment: &Value| {
        let device = environment["device"].as_str()?;
        // Which of several cards of a machine computes does not matter.
        Some(device.split(':').next().unwrap_or(device).to_string())
    };
    let text = |value: &Value| value.as_str().map(String::from);
    type Fact<'b> = &'b dyn Fn(&Value) -> Option<String>;
    let facts: [(&str, Fact<'_>); 4] = [
        ("architectures", &|of| text(&of["architecture"])),
        ("instruction sets", &|of| text(&of["instruction_set"])),
        ("devices", &device),
        ("GPUs", &|of| text(&of["gpu"]["adapter"])),
    ];
    let mut mixed = Vec::new();
    for (name, fact) in facts {
        let values: BTreeSet<String> = environments.clone().filter_map(fact).collect();
        if values.len() > 1 {
            let values: Vec<String> = values.into_iter().collect();
            mixed.push(format!("{name} {}", values.join(" and ")));
        }
    }
    (!mixed.is_empty()).then(|| {
        format!(
            "Mixed machines: the runs were made with {}. Equal settings need not give equal bits on them, so a difference \
             between two runs may be one of machines.",
            mixed.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn runs_of_several_instruction_sets_and_devices_are_a_mixture_and_two_cards_are_not() {
        let of = |device: &str, set: &str| json!({"device": device, "instruction_set": set});
        let mixed = |environments: &[Value]| mixture(environments.iter());
        assert_eq!(
            mixed(&[of("cuda:0", "AVX-512"), of("cuda:1", "AVX-512")]),
            None
        );
        assert_eq!(mixed(&[]), None);
        let text = mixed(&[of("cpu", "AVX-512"), of("cpu", "AVX2"), of("cuda", "AVX2")]);
        let text = text.unwrap_or_default();
        for part in [
            "Mixed machines",
            "instruction sets AVX-512 and AVX2",
            "devices cpu and cuda",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn runs_of_versions_that_did_not_write_a_fact_are_no_mixture() {
        let environments = [json!({"device": "cpu"}), json!({"instruction_set": "AVX2"})];
        assert_eq!(mixture(environments.iter()), None);
    }
}
