//! What the name of a metric says: whether it is a rate, and which way is better.
//!
//! A *rate* is a share of cases, shown in per cent unless a column gives its own scale. The name decides (`acc`,
//! `exact_match`, `pass@10`, …), and measured values can overrule it: some tasks report `f1` in per cent already, so a
//! column with a measured value outside [0, 1] is not one of rates ([`super::table`]). A value in [0, 1] under another
//! name is left as it is: a loss may well lie there.

/// Names of rates, as lm-evaluation-harness and its tasks spell them.
const RATES: [&str; 13] = [
    "acc",
    "acc_bytes",
    "acc_mutual_info",
    "acc_norm",
    "accuracy",
    "em",
    "exact",
    "exact_match",
    "f1",
    "mc1",
    "mc2",
    "pass@k",
    "pass_at_k",
];

/// Endings of longer names of rates (`prompt_level_strict_acc`, `best_f1`).
const RATE_ENDINGS: [&str; 5] = ["_acc", "_accuracy", "_em", "_exact_match", "_f1"];

/// Metrics of which less is better.
const LOWER: [&str; 11] = [
    "bits_per_byte",
    "brier_score",
    "byte_perplexity",
    "cer",
    "kl",
    "loss",
    "nll",
    "perplexity",
    "ter",
    "wer",
    "word_perplexity",
];

/// Metrics that are no rates and of which more is better.
const HIGHER: [&str; 6] = ["bleu", "chrf", "mcc", "rouge1", "rouge2", "rougeL"];

/// Whether values under this name are shares of cases, in [0, 1].
pub fn is_rate(metric: &str) -> bool {
    let numbered = |prefix| {
        metric.strip_prefix(prefix).is_some_and(|k: &str| !k.is_empty() && k.bytes().all(|b| b.is_ascii_digit()))
    };
    RATES.contains(&metric)
        || RATE_ENDINGS.iter().any(|end| metric.ends_with(end))
        || numbered("pass@")
        || numbered("pass_at_")
}

/// Whether more is better, where the name says so. Nothing is guessed: under an unknown name no value is the best.
pub fn higher_is_better(metric: &str) -> Option<bool> {
    if is_rate(metric) || HIGHER.contains(&metric) {
        Some(true)
    } else if LOWER.contains(&metric) {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_known_by_name() {
        for name in
            ["acc", "acc_norm", "exact_match", "pass@1", "pass@10", "pass_at_1", "f1", "em", "inst_level_loose_acc"]
        {
            assert!(is_rate(name), "{name}");
        }
        for name in ["perplexity", "bits_per_byte", "bleu", "pass@", "pass@x", "bypass_at_", "mcc", "", "latency"] {
            assert!(!is_rate(name), "{name}");
        }
    }

    #[test]
    fn direction_is_known_or_not_guessed() {
        assert_eq!(higher_is_better("exact_match"), Some(true));
        assert_eq!(higher_is_better("word_perplexity"), Some(false));
        assert_eq!(higher_is_better("latency"), None);
    }
}
