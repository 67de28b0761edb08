//! `eomt-edge-bridge recover`, and what a recorder does at its start about files that its predecessor left unfinished.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use eomt_edge_files::files::{self, AtomicFile};
use eomt_edge_files::output;

use super::recover::{Recovered, recover};
use super::units::mebibytes;

/// At a recorder's start files up to this size are repaired, bytes: a minute on a small board. Larger ones are named in the log.
const REPAIRED_BYTES_MAX: u64 = 1 << 30;

/// Arguments of `recover`.
#[derive(Debug, Args)]
#[command(after_help = "IN stays as it is. Any MCAP file will do, whoever recorded it.")]
pub struct RecoverArgs {
    /// The MCAP file that readers refuse
    #[arg(value_name = "IN.mcap")]
    pub input: PathBuf,
    /// The file to write; it must not exist
    #[arg(value_name = "OUT.mcap")]
    pub output: PathBuf,
}

impl RecoverArgs {
    /// Recovers, and says what was found.
    ///
    /// # Errors
    /// When nothing can be read, or the output not be written.
    pub fn run(self) -> Result<()> {
        let RecoverArgs { input, output } = self;
        if output.symlink_metadata().is_ok() {
            bail!("{}: exists, and nothing is written over it: take another name", output.display());
        }
        let found = rewrite(&input, &output, 1)?;
        output::say(format!("{}: {}", output.display(), sentence(&found)))
    }
}

fn sentence(found: &Recovered) -> String {
    let Recovered { messages, lost, damaged_chunks, attachments, end, bytes, is_whole } = *found;
    let mut text = format!("{messages} messages");
    if !is_whole {
        text += &format!(", read up to byte {end} of {bytes}");
    }
    let left_out = [(damaged_chunks, "damaged chunks"), (lost, "records without sense"), (attachments, "attachments")];
    let left_out: Vec<String> = left_out.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if !left_out.is_empty() {
        text += &format!("; left out: {}", left_out.join(", "));
    }
    text
}

/// Writes `output` whole, or not at all when there are fewer messages than `least`; it may be `input`.
fn rewrite(input: &Path, output: &Path, least: u64) -> Result<Recovered> {
    let mut file = files::open(input).with_context(|| format!("{}: cannot be read", input.display()))?;
    let whole = AtomicFile::create(output)?;
    let (found, whole) = recover(&mut file, whole).with_context(|| input.display().to_string())?;
    if found.messages < least {
        bail!("{}: holds no message that can be read", input.display());
    }
    whole.commit()?;
    Ok(found)
}

/// Repairs files that have no end. What fails is logged: it must not keep anybody from recording.
pub fn repair<'a>(files: impl IntoIterator<Item = &'a Path>, min_free: u64) {
    for path in files {
        match unfinished(path) {
            Ok(None) => {}
            Ok(Some(bytes)) if bytes > REPAIRED_BYTES_MAX || free_bytes(path) < min_free.saturating_add(bytes) => {
                let (path, bytes) = (path.display(), mebibytes(bytes));
                log::warn!("{path}: its end is missing; at {bytes} it is left as it is: `eomt-edge-bridge recover` makes it whole");
            }
            Ok(Some(_)) => match rewrite(path, path, 0) {
                Ok(found) => log::info!("{}: its end was missing; written whole again: {}", path.display(), sentence(&found)),
                Err(error) => log::warn!("its end is missing, and it is left as it is: {error:#}"),
            },
            Err(error) => log::warn!("{}: cannot be read ({error})", path.display()),
        }
    }
}

/// The size of a file that does not end as MCAP files do.
fn unfinished(path: &Path) -> std::io::Result<Option<u64>> {
    let mut file = files::open(path)?;
    let bytes = file.seek(SeekFrom::End(0))?;
    let mut end = [0; mcap::MAGIC.len()];
    if bytes >= 2 * end.len() as u64 {
        file.seek(SeekFrom::End(-(end.len() as i64)))?;
        file.read_exact(&mut end)?;
    }
    Ok((end != mcap::MAGIC).then_some(bytes))
}

fn free_bytes(path: &Path) -> u64 {
    File::open(path).ok().and_then(|file| super::spool::free_bytes(&file).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::record::book::Book;
    use crate::record::series::{Bounds, Series};
    use crate::record::spool::Spool;
    use crate::record::testing::{names, scratch};

    #[test]
    fn a_file_without_its_end_is_repaired_and_others_stay() {
        let directory = scratch("repair");
        let out = directory.join("out.mcap");
        let mut series = Series::open(&out, true, Bounds::default()).unwrap();
        for is_finished in [true, false] {
            let (file, path) = series.create().unwrap();
            let book = Book::new(Spool::new(file), path, Instant::now()).unwrap();
            book.spool().drain(0).unwrap();
            if is_finished {
                book.finish().unwrap();
            }
        }
        std::fs::write(directory.join("out_0003.mcap"), "of somebody else").unwrap();
        let whole = std::fs::read(directory.join("out_0001.mcap")).unwrap();
        let repair_all = |min_free| repair(Series::open(&out, true, Bounds::default()).unwrap().finished(), min_free);
        // not on a full disk
        repair_all(u64::MAX);
        assert!(unfinished(&directory.join("out_0002.mcap")).unwrap().is_some());
        repair_all(0);
        let repaired = std::fs::read(directory.join("out_0002.mcap")).unwrap();
        assert_eq!(mcap::Summary::read(&repaired).unwrap().unwrap().stats.unwrap().message_count, 0);
        assert_eq!(std::fs::read(directory.join("out_0001.mcap")).unwrap(), whole);
        assert_eq!(std::fs::read(directory.join("out_0003.mcap")).unwrap(), b"of somebody else");
        assert_eq!(names(&directory), ["out_0001.mcap", "out_0002.mcap", "out_0003.mcap"]);
    }

    #[test]
    fn the_command_writes_over_nothing_and_no_file_without_messages() {
        let directory = scratch("command");
        let (input, output) = (directory.join("in.mcap"), directory.join("out.mcap"));
        std::fs::write(&input, mcap::MAGIC).unwrap();
        let run = || RecoverArgs { input: input.clone(), output: output.clone() }.run().unwrap_err();
        assert!(format!("{:#}", run()).contains("holds no message"));
        assert!(!output.exists());
        std::fs::write(&output, "here already").unwrap();
        assert!(run().to_string().contains("exists"));
        assert_eq!(std::fs::read(&output).unwrap(), b"here already");
    }

    #[test]
    fn the_sentence_counts_what_is_missing() {
        let found = Recovered { messages: 7, end: 100, bytes: 120, damaged_chunks: 2, ..Recovered::default() };
        assert_eq!(sentence(&found), "7 messages, read up to byte 100 of 120; left out: 2 damaged chunks");
        assert_eq!(sentence(&Recovered { messages: 7, is_whole: true, ..Recovered::default() }), "7 messages");
    }
}
