//! `holdfast recipe list|check`.

use crate::app::App;
use crate::exit::Exit;
use crate::find;
use crate::table::table;
use anyhow::Result;
use holdfast_image::check::{Conflict, Contents, Explanation, Said};
use holdfast_image::recipe::Layer;
use holdfast_image::{Board, Cache, Recipe};
use serde::Serialize;
use std::path::PathBuf;

/// Verbs about recipes.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List the recipes that are known
    #[command(
        visible_alias = "show",
        after_help = "\
Examples:
  holdfast recipe list
  holdfast recipe list --output json"
    )]
    List,
    /// Say what a recipe does, which line says so, and what contradicts itself
    Check(Args),
}

/// Options of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast recipe check k3s
  holdfast recipe check ./my/edge.toml --board x86-64
  holdfast recipe check ./my/edge.toml --board rpi4 --verbose
  holdfast recipe check ./my/edge.toml --output json

Ends with code 1 where something contradicts itself. What only packages tell (modules, their files, \
programs of services) is looked at when the recipe is locked and they are in the cache: after a build.")]
pub struct Args {
    /// A recipe's name in recipes/, or its file
    recipe: String,
    /// Check for this board; may be repeated [default: every board in boards/]
    #[arg(long, value_name = "BOARD")]
    board: Vec<String>,
    /// Everything that goes in, and which line of which recipe says so
    #[arg(short, long)]
    verbose: bool,
}

/// Runs the verb.
pub fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::List => list(app),
        Verb::Check(args) => check(app, &args),
    }
}

fn list(app: &App) -> Result<()> {
    #[derive(Serialize)]
    struct Listed {
        name: String,
        extends: Option<String>,
        description: String,
        file: PathBuf,
        locked: bool,
    }
    let listed = |file: PathBuf| {
        let name = file.file_stem().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let locked = file.with_extension("lock").is_file();
        match find::recipe(&file.to_string_lossy()) {
            Ok(recipe) => Listed {
                name,
                extends: recipe.layers.iter().rev().nth(1).map(|l| l.name.clone()),
                description: recipe.description,
                file,
                locked,
            },
            Err(error) => Listed {
                name,
                extends: None,
                description: format!("cannot be read: {error:#}"),
                file,
                locked,
            },
        }
    };
    let all: Vec<Listed> = find::all_recipes().into_iter().map(listed).collect();
    app.print(&all, || {
        table(
            ["name", "extends", "locked", "what it is"],
            all.iter().map(|r| {
                [
                    r.name.clone(),
                    r.extends.clone().unwrap_or_default(),
                    if r.locked { "yes" } else { "no" }.into(),
                    r.description.clone(),
                ]
            }),
        )
    })
}

fn check(app: &App, args: &Args) -> Result<()> {
    let recipe = find::recipe(&args.recipe)?;
    let files = find::boards(&args.board)?;
    let cache = Cache::open(Cache::default_dir()?)?;
    let all = files
        .iter()
        .map(|file| Ok(explain(&recipe, &Board::read(file)?, &cache)))
        .collect::<Result<Vec<_>>>()?;
    app.print(&all, || match args.verbose {
        true => all.iter().map(text).collect::<Vec<_>>().join("\n\n\n"),
        false => verdicts(&all),
    })?;
    let conflicts: usize = all.iter().map(|e| e.conflicts.len()).sum();
    match conflicts {
        0 => Ok(()),
        1 => Err(Exit::Failed.error(format!("recipe {}: one conflict", recipe.name))),
        n => Err(Exit::Failed.error(format!("recipe {}: {n} conflicts", recipe.name))),
    }
}

fn explain(recipe: &Recipe, board: &Board, cache: &Cache) -> Explanation {
    let contents = Contents::of(&recipe.resolved(board.arch), board, cache);
    Explanation::of(recipe, board, contents.as_ref().map_err(Clone::clone))
}

/// Where the recipe comes from, layer by layer.
fn chain(e: &Explanation) -> String {
    let line = |l: &Layer| format!("\n  {}  {} ({})", l.name, l.description, l.path.display());
    e.layers.iter().map(line).collect()
}

/// The recipe once, then what matters of each board: what goes in by numbers, conflicts, and what
/// was not looked at.
fn verdicts(all: &[Explanation]) -> String {
    let Some(first) = all.first() else {
        return "no boards".into();
    };
    let rows = all.iter().map(|e| {
        let services = match e.services.len() {
            1 => "1 service".into(),
            n => format!("{n} services"),
        };
        [
            format!("{} ({})", e.board, e.arch),
            format!(
                "{} packages, {} modules, {services}",
                e.packages.len(),
                e.modules.len()
            ),
            match e.conflicts.len() {
                0 => "none".into(),
                n => n.to_string(),
            },
        ]
    });
    let mut text = format!(
        "recipe {}, packages of {}{}\n\n{}",
        first.recipe,
        first.archive,
        chain(first),
        table(["board", "named in it", "conflicts"], rows)
    );
    // Mostly the same on every board: said once, with the boards.
    let mut said: Vec<(String, Vec<&str>)> = vec![];
    for e in all {
        let conflicts = e.conflicts.iter().map(conflict);
        for words in conflicts.chain(e.unchecked.iter().cloned()) {
            match said.iter_mut().find(|(known, _)| *known == words) {
                Some((_, boards)) => boards.push(&e.board),
                None => said.push((words, vec![&e.board])),
            }
        }
    }
    for (words, boards) in said {
        let on = match boards.len() == all.len() {
            true => String::new(),
            false => format!("{}: ", boards.join(", ")),
        };
        text += &format!("\n\n{on}{words}");
    }
    text + "\n\n--verbose tells all that goes in, and which line says so."
}

fn conflict(conflict: &Conflict) -> String {
    let places = conflict.places.iter();
    let places: String = places.map(|p| format!("\n  {p}")).collect();
    format!("conflict: {}{places}", conflict.message)
}

fn text(e: &Explanation) -> String {
    let mut parts = vec![format!(
        "recipe {} on board {} ({}), packages of {}{}",
        e.recipe,
        e.board,
        e.arch,
        e.archive,
        chain(e)
    )];
    for (title, list) in [
        ("package", &e.packages),
        ("without", &e.excluded),
        ("module", &e.modules),
        ("kernel argument", &e.kernel_args),
        ("kernel setting", &e.sysctl),
        ("path", &e.files),
        ("service", &e.services),
        ("k3s", &e.k3s),
    ] {
        if !list.is_empty() {
            parts.push(section(title, list));
        }
    }
    parts.extend(e.conflicts.iter().map(conflict));
    if e.conflicts.is_empty() {
        parts.push("no conflicts".into());
    }
    parts.extend(e.unchecked.iter().cloned());
    parts.join("\n\n")
}

fn section(title: &str, list: &[Said]) -> String {
    let places = |said: &Said| {
        let all: Vec<String> = said.places.iter().map(ToString::to_string).collect();
        all.join(", ")
    };
    if list.iter().all(|said| said.detail.is_empty()) {
        let rows = list.iter().map(|said| [said.what.clone(), places(said)]);
        return table([title, "from"], rows);
    }
    table(
        [title, "", "from"],
        list.iter()
            .map(|said| [said.what.clone(), said.detail.clone(), places(said)]),
    )
}
