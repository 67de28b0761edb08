//! Standard output of commands, sentences for people, and the errors that decide the exit code.

/// The most characters of a word in a [`sentence`]: a long path keeps its ends.
const WORD_CHARS_MAX: usize = 200;
/// The most characters of a [`sentence`].
const SENTENCE_CHARS_MAX: usize = 1000;

/// `text` on one line, for a terminal or a log. Control characters and those that turn the direction of writing are escaped as in JSON
/// (`\u001b`). Words of more than 200 characters, and the whole from 1,000 on, lose their middle: a sentence begins with its subject and ends
/// with the remedy.
pub fn sentence(text: &str) -> String {
    let line: String = text.trim_end().chars().map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c }).collect();
    let words: Vec<String> = escaped(&line).split(' ').map(|word| without_middle(word, WORD_CHARS_MAX)).collect();
    without_middle(&words.join(" "), SENTENCE_CHARS_MAX)
}

/// `text` with its control characters, but for ends of lines and tabulators, escaped as in JSON: what is JSON stays the same JSON.
pub fn escaped(text: &str) -> String {
    // what turns text around on a screen: explicit directional formatting (UAX #9), and the separators that end a line
    let turns = |c: char| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            c if c.is_control() || turns(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// `text` without what URLs may carry to be let in: what stands before `@`, and behind `?`. Rather too much than too little.
pub fn without_passwords(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + "://".len());
        let (url, after) = url.split_at(url.find(ends).unwrap_or(url.len()));
        out.push_str(before);
        let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
        let host = path.rsplit_once('@').map(|(_, host)| host);
        // a '?' that belongs to the password comes before the '@'
        let (host, query) = match query.and_then(|query| query.rsplit_once('@')) {
            Some((_, host)) => (Some(host), None),
            None => (host, query),
        };
        out.push_str(if host.is_some() { "***@" } else { "" });
        out.push_str(host.unwrap_or(path));
        out.push_str(if query.is_some() { "?***" } else { "" });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// At most `most` characters: two thirds of the beginning, then the end.
fn without_middle(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let head = most * 2 / 3;
    let tail = most - 1 - head;
    text.chars().take(head).chain(['…']).chain(text.chars().skip(count - tail)).collect()
}

/// Wrong usage: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The reader of standard output is gone: the end, but no failure.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct OutputClosed;

/// Writes a line to standard output, [`escaped`]: labels and names come from files.
///
/// # Errors
/// [`OutputClosed`] when its reader is gone (EPIPE), else the error of `write(2)`.
pub fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{}", escaped(&line.to_string())) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        Err(error) => Err(anyhow::Error::new(error).context("standard output cannot be written")),
    }
}

/// Ends a command with a [`UsageError`].
///
/// # Errors
/// Always.
pub fn usage<T>(sentence: impl Into<String>) -> anyhow::Result<T> {
    Err(UsageError(sentence.into()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_one_line_of_printable_characters() {
        assert_eq!(sentence("a.onnx: broken\n"), "a.onnx: broken");
        assert_eq!(sentence("a\nb\tc\rd"), "a b c d");
        assert_eq!(
            sentence("\u{1b}[31mred\u{7}\u{9b}2J\u{202e}gnp.exe\u{2066}\u{2028}."),
            "\\u001b[31mred\\u0007\\u009b2J\\u202egnp.exe\\u2066\\u2028."
        );
        assert_eq!(sentence("Büro 日本 été"), "Büro 日本 été");
    }

    #[test]
    fn long_values_lose_their_middle() {
        let path = format!("/data/{}/model.onnx:", "d".repeat(5000));
        let said = sentence(&format!("{path} cannot be read"));
        assert!(said.starts_with("/data/ddd") && said.ends_with("ddd/model.onnx: cannot be read") && said.contains('…'), "{said}");
        assert_eq!(said.chars().count(), 200 + " cannot be read".len());
        let said = sentence(&format!("key = {}: take another", "many words ".repeat(500)));
        assert!(said.starts_with("key = many") && said.ends_with(": take another"), "{said}");
        assert_eq!(said.chars().count(), 1000);
        assert!(sentence(&"\u{1b}".repeat(5000)).chars().count() <= 200);
    }

    #[test]
    fn urls_lose_their_passwords() {
        for (text, expected) in [
            ("exec:ffmpeg -i rtsp://me:my@pass/word@camera:554/1 -f x", "exec:ffmpeg -i rtsp://***@camera:554/1 -f x"),
            ("a 'http://h/p?token=1&x=2' and \"ftp://token@h\"", "a 'http://h/p?***' and \"ftp://***@h\""),
            ("rtsp://me:what?@h/1", "rtsp://***@h/1"),
            ("http://h/a://u:p@i", "http://***@i"),
            ("tcp://localhost:5000 and replay:/data@12.5", "tcp://localhost:5000 and replay:/data@12.5"),
            ("://", "://"),
            ("", ""),
        ] {
            assert_eq!(without_passwords(text), expected);
        }
    }

    #[test]
    fn json_stays_the_same_json() {
        let text = "{\"label\":\"a\u{9b}b\u{202e}\",\n\t\"n\": 1}";
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let safe = escaped(text);
        assert!(!safe.contains('\u{9b}') && !safe.contains('\u{202e}'));
        assert_eq!(parse(&safe), parse(text));
    }
}
