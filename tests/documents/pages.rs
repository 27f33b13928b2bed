//! The pages and their parts: fences, links, headings, and the sections that the code writes.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the package is.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page of documentation.
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A block between fences.
pub(crate) struct Block {
    /// What stands behind the opening fence: a language, and perhaps a word about the block.
    pub(crate) info: String,
    pub(crate) text: String,
    /// For messages: file and line.
    pub(crate) place: String,
}

/// README.md alone.
pub(crate) fn readme() -> Page {
    page(root().join("README.md"))
}

/// All pages that people read.
pub(crate) fn pages() -> Vec<Page> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "src/architecture.md"].iter().map(|name| root().join(name)).collect();
    let docs = fs::read_dir(root().join("docs")).unwrap();
    paths.extend(docs.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "md")));
    paths.sort();
    paths.into_iter().map(page).collect()
}

fn page(path: PathBuf) -> Page {
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Page { path, text }
}

impl Page {
    /// Its name below the package.
    pub(crate) fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap().display().to_string()
    }

    /// What stands between fences.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        self.split().0
    }

    /// What stands outside of fences.
    pub(crate) fn prose(&self) -> String {
        self.split().1
    }

    fn split(&self) -> (Vec<Block>, String) {
        let (mut blocks, mut prose) = (Vec::new(), String::new());
        let mut open: Option<Block> = None;
        for (number, line) in self.text.lines().enumerate() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(info), None) => {
                    let place = format!("{}:{}", self.name(), number + 1);
                    open = Some(Block { info: info.to_owned(), text: String::new(), place });
                }
                (Some(""), Some(_)) => blocks.extend(open.take()),
                (_, Some(block)) => block.text.extend([line, "\n"]),
                (_, None) => prose.extend([line, "\n"]),
            }
        }
        assert!(open.is_none(), "{}: a fence stays open", self.name());
        (blocks, prose)
    }

    /// What stands in single backticks, on one line.
    pub(crate) fn spans(&self) -> Vec<String> {
        let prose = self.prose();
        prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
    }

    /// Targets of links.
    pub(crate) fn links(&self) -> Vec<String> {
        let prose = self.prose();
        prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
    }

    /// What a `#` of a link can name, as GitHub makes it from headings.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let prose = self.prose();
        let headings =
            prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
        headings
            .map(|heading| {
                let kept = heading.to_lowercase();
                kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>()
            })
            .map(|kept| kept.replace(' ', "-"))
            .collect()
    }

    /// The page with `part` between the markers of `name`.
    pub(crate) fn with(&self, name: &str, part: &str) -> String {
        let (begin, end) = (format!("<!-- generated: {name} -->\n"), format!("<!-- /generated: {name} -->\n"));
        let (before, rest) = self.text.split_once(&begin).unwrap_or_else(|| panic!("{}: no {begin}", self.name()));
        let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{}: no {end}", self.name()));
        format!("{before}{begin}\n{}\n\n{end}{after}", part.trim())
    }
}
