//! What the documents show: commands, configuration and links that work, and refusals that are refused.

use std::path::{Path, PathBuf};

use clap::Parser;
use eomt_edge::cli::{Cli, Command};
use eomt_edge::config::Config;

use super::sources::root;

/// A fenced block: the words behind the opening fence, its text, and the line where it opens.
struct Block {
    info: String,
    text: String,
    line: usize,
}

impl Block {
    fn must_fail(&self) -> bool {
        self.info.split_whitespace().any(|word| word == "must-fail")
    }

    fn language(&self) -> &str {
        self.info.split_whitespace().next().unwrap_or_default()
    }
}

/// Every Markdown page of the repository with its path from the root.
fn pages() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).expect("readable") {
            let path = entry.expect("readable").path();
            let name = path.file_name().expect("named").to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" && !name.ends_with("-output") && name != "node_modules" {
                walk(&path, found);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    let page = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        (path.strip_prefix(root()).expect("below").to_string_lossy().into_owned(), text)
    };
    found.into_iter().map(page).collect()
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        match line.trim_start().strip_prefix("```") {
            Some(info) if !open => {
                open = true;
                found.push(Block { info: info.trim().to_owned(), text: String::new(), line: index + 1 });
            }
            Some(_) => open = false,
            None if open => {
                let block = found.last_mut().expect("open");
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    found
}

/// The commands of this program in a shell snippet, line continuations joined, as the shell would split them.
fn commands(snippet: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in snippet.replace("\\\n", " ").lines() {
        let Some(start) = line.find("eomt-edge ").filter(|start| starts_a_command(&line[..*start])) else { continue };
        found.push(words(&line[start..]));
    }
    found
}

/// Whether what stands before the name lets it be a command: nothing, a path, `sudo`, a pipe.
fn starts_a_command(before: &str) -> bool {
    let before = before.trim_end_matches(['.', '/']).trim_end_matches(|c: char| c.is_alphanumeric() || "-_/.~".contains(c)).trim_end();
    before.is_empty()
        || before.ends_with(['|', ';', '&', '$', '('])
        || before.ends_with("sudo")
        || before.ends_with("exec")
        || before.ends_with(':')
}

/// Words of a command as the shell sees them, up to a pipe, comment, redirection or the next command.
fn words(command: &str) -> Vec<String> {
    let (mut found, mut word, mut quote, mut started) = (Vec::new(), String::new(), None, false);
    for c in command.chars() {
        match (quote, c) {
            (Some(mark), c) if c == mark => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => (quote, started) = (Some(c), true),
            (None, '|' | '&' | ';' | '>' | '<' | ')') => break,
            (None, '#') if word.is_empty() && !started => break,
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() || started {
                    found.push(std::mem::take(&mut word));
                }
                started = false;
            }
            (None, c) => word.push(c),
        }
    }
    if !word.is_empty() || started {
        found.push(word);
    }
    found
}

/// Whether the program takes this command: arguments and, for `run`, the keys that it sets.
fn accept(command: &[String]) -> Result<(), String> {
    match Cli::try_parse_from(command) {
        Ok(cli) => match cli.command {
            Command::Run(args) => Config::parse("", &args.set).map(|_| ()).map_err(|error| error.to_string()),
            _ => Ok(()),
        },
        Err(error) => match error.kind() {
            clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => Ok(()),
            // a build without a command says that it does not know it
            clap::error::ErrorKind::InvalidSubcommand if left_out(&command[1]) => Ok(()),
            _ => Err(error.to_string()),
        },
    }
}

/// Whether a command belongs to a feature that this build leaves out.
fn left_out(command: &str) -> bool {
    const TOOLS: [&str; 8] = ["convert", "segment", "evaluate", "scenes", "logits", "preprocess", "postprocess", "bench"];
    (!cfg!(feature = "train") && command == "train") || (!cfg!(feature = "tools") && TOOLS.contains(&command))
}

#[test]
fn documented_commands_are_taken_and_refusals_refused() {
    let (mut taken, mut wrong) = (0, Vec::new());
    for (page, text) in pages() {
        for block in blocks(&text) {
            for command in commands(&block.text) {
                let place = format!("{page}:{}: {}", block.line, command.join(" "));
                match (accept(&command), block.must_fail()) {
                    (Ok(()), false) => taken += 1,
                    (Err(_), true) => {}
                    (Ok(()), true) => wrong.push(format!("{place}: the page says that this is refused")),
                    (Err(error), false) => wrong.push(format!("{place}: {error}")),
                }
            }
        }
    }
    let unit = std::fs::read_to_string(root().join("systemd/eomt-edge.service")).expect("the unit");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).expect("ExecStart");
    if let Err(error) = accept(&words(start)) {
        wrong.push(format!("ExecStart: {error}"));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(taken >= 40, "the pages show {taken} commands");
}

/// The page without its fenced blocks.
fn prose(text: &str) -> String {
    let filled = blocks(text).into_iter().filter(|block| !block.text.is_empty());
    filled.fold(text.to_owned(), |text, block| text.replace(&block.text, ""))
}

/// `--set key=value` in running text, too; commands in fenced blocks are tried whole.
#[test]
fn documented_keys_exist() {
    let (mut keys, mut wrong) = (0, Vec::new());
    for (page, text) in pages() {
        let prose = prose(&text);
        for rest in prose.split("--set ").skip(1) {
            let item = words(rest.split(['`', '\n']).next().unwrap_or_default()).into_iter().next().unwrap_or_default();
            let item = item.trim_end_matches(['.', ',', ')']);
            if item.is_empty() || item == "key=value" {
                continue;
            }
            keys += 1;
            if let Err(error) = Config::parse("", &[item.to_owned()]) {
                wrong.push(format!("{page}: --set {item}: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(keys >= 2, "the pages set {keys} keys");
}

#[test]
fn documented_configuration_parses() {
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        for block in blocks(&text).into_iter().filter(|block| block.language() == "toml") {
            // a manifest of the reader's own program; a bridge's configuration, which its own tests read
            if block.info.split_whitespace().any(|word| word == "cargo" || word == "mqtt") {
                continue;
            }
            let place = format!("{page}:{}", block.line);
            match (Config::parse(&block.text, &[]), block.must_fail()) {
                (Ok(_), false) | (Err(_), true) => {}
                (Ok(_), true) => wrong.push(format!("{place}: the page says that this is refused")),
                (Err(error), false) => wrong.push(format!("{place}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Files and headings that links of the pages lead to.
#[test]
fn links_lead_somewhere() {
    let (mut links, mut wrong) = (0, Vec::new());
    for (page, text) in pages() {
        let folder = root().join(&page).parent().expect("a folder").to_owned();
        let prose = prose(&text);
        let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned());
        let sources = prose.split("src=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(target, _)| target.to_owned());
        for target in targets.chain(sources) {
            let target = target.split_whitespace().next().unwrap_or_default();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (file, heading) = target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
            let path = if file.is_empty() { root().join(&page) } else { folder.join(file) };
            if !path.exists() {
                wrong.push(format!("{page}: {target}: there is no such file"));
            } else if let Some(heading) = heading.filter(|_| path.extension().is_some_and(|extension| extension == "md")) {
                let there = std::fs::read_to_string(&path).expect("UTF-8");
                if !there.lines().filter_map(|line| line.strip_prefix('#')).any(|title| slug(title) == heading) {
                    wrong.push(format!("{page}: {target}: there is no such heading"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(links >= 20, "the pages hold {links} links");
}

/// The anchor that GitHub gives a heading.
fn slug(title: &str) -> String {
    let title = title.trim_start_matches('#').trim().to_lowercase();
    title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn snippets_are_split_as_a_shell_would() {
    let split = |text: &str| commands(text).into_iter().map(|words| words.join("|")).collect::<Vec<_>>();
    assert_eq!(split("eomt-edge run --set 'a=b c' \\\n  --frames 3 # words"), ["eomt-edge|run|--set|a=b c|--frames|3"]);
    assert_eq!(split("rpicam-vid -o - | eomt-edge run --source pipe:- | tee x"), ["eomt-edge|run|--source|pipe:-"]);
    assert_eq!(split("sudo adduser me eomt-edge group"), Vec::<String>::new());
    assert_eq!(split("./target/release/eomt-edge doctor"), ["eomt-edge|doctor"]);
}
