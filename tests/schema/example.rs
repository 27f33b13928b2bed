//! The example configuration with what it only shows.

/// Uncommented as its header tells: a comment is `# ` and a word; an example is anything else behind a `#`.
pub(crate) fn uncommented(text: &str) -> String {
    let mut uncommented = String::new();
    for line in text.lines() {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        let example = rest.strip_prefix('#').filter(|rest| {
            let prose = rest.is_empty() || (rest.starts_with(' ') && !rest.starts_with("  "));
            !prose
        });
        match example {
            Some(example) => uncommented.push_str(&format!("{indent}{example}\n")),
            None => uncommented.push_str(&format!("{line}\n")),
        }
    }
    uncommented
}
