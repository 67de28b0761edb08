//! Manual pages and completions of a program, from clap's definitions: NAME(1), and one page for each command that `--help` shows, and
//! for its parts.

use std::path::Path;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// One page: `eomt-edge-run.1` and its roff text.
pub struct Page {
    pub file: String,
    pub text: String,
}

/// A program, and the sections of its pages that no definition knows, by command ("" = the program).
pub struct Program {
    pub command: Command,
    pub by_hand: &'static [(&'static str, &'static str)],
}

impl Program {
    /// `command` without `help`, which would have a page for every page.
    pub fn new(command: Command, by_hand: &'static [(&'static str, &'static str)]) -> Program {
        Program { command: command.disable_help_subcommand(true), by_hand }
    }

    /// Every page and completion, into `directory`.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        for page in self.pages()? {
            write(&directory.join("man"), &page.file, page.text.as_bytes())?;
        }
        let name = self.command.get_name().to_owned();
        // as Debian's policies and the shells' own search paths name them
        for (shell, file) in
            [(Shell::Bash, format!("bash/{name}")), (Shell::Zsh, format!("zsh/_{name}")), (Shell::Fish, format!("fish/{name}.fish"))]
        {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut self.command.clone(), &name, &mut script);
            write(&directory.join("completions"), &file, &script)?;
        }
        Ok(())
    }

    fn pages(&self) -> std::io::Result<Vec<Page>> {
        let mut program = self.command.clone();
        program.build(); // passes the global arguments and the full names on to the commands
        let mut pages = vec![self.page(&program, "")?];
        for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
            pages.push(self.page(command, command.get_name())?);
            // of `control`, whose overview names them
            for part in command.get_subcommands().filter(|part| part.get_name() != "help") {
                pages.push(self.page(part, part.get_name())?);
            }
        }
        Ok(pages)
    }

    fn page(&self, command: &Command, name: &str) -> std::io::Result<Page> {
        let program = self.command.get_name();
        let title = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let mut out = Vec::new();
        let manual = Man::new(command.clone()).title(title.to_uppercase()).manual(format!("{program} manual"));
        manual.render_title(&mut out)?;
        manual.render_name_section(&mut out)?;
        manual.render_synopsis_section(&mut out)?;
        manual.render_description_section(&mut out)?;
        manual.render_options_section(&mut out)?;
        if command.get_subcommands().any(|command| !command.is_hide_set()) {
            manual.render_subcommands_section(&mut out)?;
        }
        let mut text = String::from_utf8(out).map_err(std::io::Error::other)?;
        match self.by_hand.iter().find(|(of, _)| *of == name) {
            Some((_, section)) => text.push_str(section),
            None => text.push_str(&format!(".SH \"SEE ALSO\"\n\\fB{}\\fR(1)\n", program.replace('-', "\\-"))),
        }
        Ok(Page { file: format!("{title}.1"), text })
    }
}

/// A file under another name until it is whole.
pub fn write(directory: &Path, file: &str, content: &[u8]) -> anyhow::Result<()> {
    let path = directory.join(file);
    let parent = path.parent().unwrap_or(directory);
    std::fs::create_dir_all(parent).with_context(|| format!("{}: cannot be made", parent.display()))?;
    let temporary = path.with_extension("partial");
    std::fs::write(&temporary, content).with_context(|| format!("{}: cannot be written", temporary.display()))?;
    std::fs::rename(&temporary, &path).with_context(|| format!("{}: cannot be renamed", temporary.display()))
}
