//! Pages of results: a section for each experiment, each written anew without the others.

/// Puts the section of an experiment into the page, in the place of the one before.
pub(crate) fn put(page: &str, name: &str, section: &str) -> String {
    let (begin, end) = (format!("<!-- measured: {name} -->\n"), format!("<!-- /measured: {name} -->\n"));
    let section = format!("{begin}{section}{end}");
    match (page.split_once(&begin), page.split_once(&end)) {
        (Some((head, _)), Some((_, tail))) => format!("{head}{section}{tail}"),
        _ => format!("{page}\n{section}"),
    }
}

/// Writes a section: how it was measured, and the table. `given` are the arguments of this run, but for names of experiments.
pub(crate) fn write(path: &str, head: &str, bench: &str, (name, title): (&str, &str), given: &[&str], text: &str) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let page = std::fs::read_to_string(path).unwrap_or_else(|_| head.to_owned());
    let words = [&[name][..], given].concat().join(" ");
    let section = format!(
        "## {title}\n\n```sh\ncargo bench --bench {bench} -- {words}\n```\n\n{cores} cores for all of it, a {build} build. {text}"
    );
    std::fs::write(path, put(&page, name, &section)).unwrap();
}
