//! What a person at the terminal is asked and told.

use super::card::{Options, check};
use crate::app::App;
use crate::exit::Exit;
use crate::words::plain;
use anyhow::{Context as _, Result};
use holdfast_flash::medium::{Change, look};
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

/// How often the reader is looked at.
const GLANCE: Duration = Duration::from_millis(300);

/// Makes sure that `what` may be overwritten: by a word at the terminal, unless `yes`.
pub fn confirm(what: &str, question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Exit::Usage.error(format!(
            "{what}\nThere is no terminal to ask whether all of it may go: --yes says so"
        )));
    }
    let mut err = std::io::stderr();
    write!(err, "{}\n{} [y/N] ", plain(what), plain(question)).context("cannot ask")?;
    err.flush().context("cannot ask")?;
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .context("cannot read the answer")?;
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Exit::Failed.error("not confirmed: nothing was written")),
    }
}

/// Makes sure that somebody can put in card after card, where several seeds alone ask for it.
pub fn can_change_cards(device: &Path, count: usize) -> Result<()> {
    stack_fits(
        !device.starts_with("/dev"),
        std::io::stdin().is_terminal(),
        count,
    )
    .map_err(|why| {
        Exit::Usage.error(format!(
            "{count} seeds are for {count} cards, {why}: give one seed, or say with --count how many cards \
             will be put in at {}, one after the other",
            device.display()
        ))
    })
}

fn stack_fits(file: bool, terminal: bool, count: usize) -> Result<(), &'static str> {
    match (file, terminal) {
        _ if count < 2 => Ok(()),
        (true, _) => Err("and a file is one"),
        (_, false) => Err("and there is no terminal to ask for the next one"),
        _ => Ok(()),
    }
}

/// Asks for the next card of a stack, and waits until it is there and can be used.
pub fn next_card(
    app: &App,
    options: &Options<'_>,
    done: usize,
    count: usize,
    seed: Option<&Path>,
) -> Result<()> {
    let with = seed.map_or_else(String::new, |s| format!(", for {}", s.display()));
    app.say(&format!(
        "{done} of {count} done. Take this card out and put the next one in{with} (Ctrl-C ends)."
    ));
    let now = || {
        look(options.device).with_context(|| format!("cannot look at {}", options.device.display()))
    };
    let mut change = Change::after(now()?);
    let (mut said_empty, mut said) = (false, String::new());
    loop {
        if change.saw(&now()?) {
            match check(options) {
                Ok(_) => return Ok(()),
                // It may be mounted, or be made ready still: it is looked at again.
                Err(error) if error.to_string() != said => {
                    said = error.to_string();
                    app.say(&said);
                }
                Err(_) => {}
            }
        } else if change.was_away() && !said_empty {
            said_empty = true;
            app.say("The reader is empty: put the next card in.");
        }
        std::thread::sleep(GLANCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_seeds_alone_make_no_stack_that_nobody_changes() {
        assert!(stack_fits(false, true, 3).is_ok());
        assert!(stack_fits(true, false, 1).is_ok());
        for (file, terminal) in [(true, true), (true, false), (false, false)] {
            assert!(stack_fits(file, terminal, 2).is_err());
        }
    }
}
