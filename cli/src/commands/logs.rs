//! `holdfast logs NODE`.

use crate::app::{App, print_line};
use crate::lighthouse::connect;
use crate::nodes::Which;
use crate::words::{plain, utc};
use anyhow::Result;
use holdfast_core::control::{LogLine, Reply, Request};

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast logs n1 -n 50
  holdfast logs n1 -f --unit k3s
  holdfast logs n1 --output json      one JSON object a line")]
pub struct Args {
    /// Which node
    node: Which,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// How many past lines
    #[arg(short = 'n', long, default_value_t = 200, value_name = "N")]
    lines: u32,
    /// Only this unit: agent, init, kernel, k3s, or a service's name
    #[arg(short, long)]
    unit: Option<String>,
}

/// A line for people. What a node logs may hold anything.
fn text(line: &LogLine) -> String {
    const LEVELS: [&str; 8] = [
        "EMERG", "ALERT", "CRIT", "ERROR", "WARN", "NOTE", "info", "debug",
    ];
    let level = LEVELS
        .get(usize::from(line.priority))
        .copied()
        .unwrap_or("?");
    format!(
        "{} {level:<5} {}: {}",
        utc(line.at / 1_000_000),
        plain(&line.unit),
        plain(line.message.trim_end())
    )
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let connection = connect(app).await?;
    let target = connection.target(&args.node).await?;
    let request = Request::Logs {
        lines: args.lines,
        follow: args.follow,
        unit: args.unit,
    };
    let mut stream = target.ask(&request).await?;
    loop {
        let reply = if args.follow {
            stream.next_however_late().await?
        } else {
            stream.next().await?
        };
        let text = match reply {
            Some(Reply::Line(line)) if app.json() => serde_json::to_string(&line)?,
            Some(Reply::Line(line)) => text(&line),
            None => return Ok(()),
            other => return Err(stream.odd(other.as_ref())),
        };
        // `logs -f | head`: the pipe's end is the end.
        if !print_line(&text)? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_log_reaches_the_terminal_as_a_command() {
        let line = LogLine {
            at: 0,
            unit: "k3s\x1b".into(),
            priority: 3,
            message: "a\x1b[2Jb\n".into(),
        };
        assert_eq!(
            text(&line),
            "1970-01-01 00:00:00Z ERROR k3s\u{fffd}: a\u{fffd}[2Jb"
        );
    }
}
