//! Manual pages of the commands, from clap's definitions: eomt-edge(1), and one page for each command that `--help` shows, and for its parts.

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use eomt_edge::cli::Cli;

use super::config_page;

/// One page: `eomt-edge-run.1` and its roff text.
pub struct Page {
    pub file: String,
    pub text: String,
}

const MANUAL: &str = "eomt-edge manual";

/// Sections that no definition knows, by command ("" = the program).
const BY_HAND: &[(&str, &str)] = &[("", include_str!("eomt-edge.roff")), ("run", include_str!("run.roff"))];

/// The program's arguments; without `help`, which would have a page for every page.
pub fn command() -> Command {
    Cli::command().disable_help_subcommand(true)
}

/// Every page of the package.
pub fn all() -> std::io::Result<Vec<Page>> {
    let mut program = command();
    program.build(); // passes the global arguments and the full names on to the commands
    let mut pages = vec![page(&program, "")?];
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        pages.push(page(command, command.get_name())?);
        // of `control`, whose overview names them
        for part in command.get_subcommands().filter(|part| part.get_name() != "help") {
            pages.push(page(part, part.get_name())?);
        }
    }
    pages.push(Page { file: "eomt-edge.toml.5".to_owned(), text: config_page::render() });
    Ok(pages)
}

fn page(command: &Command, name: &str) -> std::io::Result<Page> {
    let title = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut out = Vec::new();
    let manual = Man::new(command.clone()).title(title.to_uppercase()).manual(MANUAL);
    manual.render_title(&mut out)?;
    manual.render_name_section(&mut out)?;
    manual.render_synopsis_section(&mut out)?;
    manual.render_description_section(&mut out)?;
    manual.render_options_section(&mut out)?;
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        manual.render_subcommands_section(&mut out)?;
    }
    let mut text = String::from_utf8(out).map_err(std::io::Error::other)?;
    match BY_HAND.iter().find(|(of, _)| *of == name) {
        Some((_, section)) => text.push_str(section),
        None => text.push_str(".SH \"SEE ALSO\"\n\\fBeomt\\-edge\\fR(1)\n"),
    }
    Ok(Page { file: format!("{title}.1"), text })
}
