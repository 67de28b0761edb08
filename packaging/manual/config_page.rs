//! eomt-edge.toml(5), from the default configuration: it lists every key with its default and what it means.
//!
//! What is understood: `[section]`; `key = value  # meaning`; `# key = value  # meaning` for a key without a default; a comment on a
//! line of its own continues the meaning when it is indented, and is a paragraph otherwise.

use clap_mangen::roff::{Roff, bold, italic, roman};

const DEFAULT: &str = include_str!("../../config/eomt-edge.toml");

/// One line of the default configuration.
enum Line<'a> {
    Section(&'a str),
    Key { key: &'a str, value: &'a str, meaning: &'a str, has_default: bool },
    Continued(&'a str),
    Paragraph(&'a str),
    Empty,
}

pub fn render() -> String {
    let mut page = Roff::new();
    page.control("TH", ["EOMT-EDGE.TOML", "5", "", concat!("eomt-edge ", env!("CARGO_PKG_VERSION")), "eomt-edge manual"]);
    page.control("SH", ["NAME"]);
    page.text([roman("eomt-edge.toml - configuration of the segmentation daemon")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("The service reads /etc/eomt-edge/eomt-edge.toml, a file in TOML ("),
        italic("https://toml.io"),
        roman("), when it starts and when it is reloaded. A key that is not given has its default, shown after \"=\" below; "),
        roman("a key that does not exist is an error. One key can be given on the command line too: "),
        bold("eomt-edge run --set ring.slots=4"),
        roman("."),
    ]);
    for line in DEFAULT.lines().skip_while(|line| !line.starts_with('[')).map(parse) {
        match line {
            Line::Section(name) => {
                page.control("SH", [name.to_uppercase().as_str()]);
                page.text([roman("Keys of the table "), bold(format!("[{name}]")), roman(".")]);
            }
            Line::Key { key, value, meaning, has_default } => {
                page.control("TP", []);
                let sign = if has_default { " = " } else { ", e.g. " };
                page.text([bold(key), roman(sign), roman(value)]);
                page.text([roman(if meaning.is_empty() { "No explanation." } else { meaning })]);
            }
            Line::Continued(text) => {
                page.text([roman(text)]);
            }
            Line::Paragraph(text) => {
                page.control("PP", []);
                page.text([roman(text)]);
            }
            Line::Empty => {}
        }
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("eomt-edge"), roman("(1), "), bold("eomt-edge-run"), roman("(1)")]);
    page.render()
}

fn parse(line: &str) -> Line<'_> {
    let trimmed = line.trim();
    if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
        return Line::Section(name.trim_matches(['[', ' ']));
    }
    if let Some(comment) = trimmed.strip_prefix('#') {
        return match pair(comment) {
            Some((key, value, meaning)) => Line::Key { key, value, meaning, has_default: false },
            None if line.starts_with(char::is_whitespace) => Line::Continued(comment.trim()),
            None => Line::Paragraph(comment.trim()),
        };
    }
    match pair(trimmed) {
        Some((key, value, meaning)) => Line::Key { key, value, meaning, has_default: true },
        None => Line::Empty,
    }
}

/// `key = value  # meaning`; nothing else has a bare key before its first "=".
fn pair(text: &str) -> Option<(&str, &str, &str)> {
    let (key, rest) = text.split_once('=')?;
    let key = key.trim();
    if key.is_empty() || !key.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter)) {
        return None;
    }
    let mut quoted = false;
    let comment = rest.char_indices().find(|(_, letter)| {
        quoted ^= *letter == '"';
        *letter == '#' && !quoted
    });
    let (value, meaning) = comment.map_or((rest, ""), |(at, _)| (&rest[..at], &rest[at + 1..]));
    Some((key, value.trim(), meaning.trim()))
}
