//! `holdfast recipe list|check`.

use crate::app::App;
use crate::exit::Exit;
use crate::find;
use crate::table::table;
use anyhow::Result;
use holdfast_image::check::{Contents, Explanation, Said};
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
  holdfast recipe check ./my/edge.toml --output json

Ends with code 1 where something contradicts itself. What only packages tell (modules, their files, \
programs of services) is looked at when the recipe is locked and they are in the cache: after a build.")]
pub struct Args {
    /// A recipe's name in recipes/, or its file
    recipe: String,
    /// Check for this board; may be repeated [default: every board in boards/]
    #[arg(long, value_name = "BOARD")]
    board: Vec<String>,
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
    app.print(&all, || {
        all.iter().map(text).collect::<Vec<_>>().join("\n\n\n")
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

fn text(e: &Explanation) -> String {
    let chain: Vec<String> = e
        .layers
        .iter()
        .map(|l| format!("  {}  {} ({})", l.name, l.description, l.path.display()))
        .collect();
    let mut parts = vec![format!(
        "recipe {} on board {} ({}), packages of {}\n{}",
        e.recipe,
        e.board,
        e.arch,
        e.archive,
        chain.join("\n")
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
    for conflict in &e.conflicts {
        let places = conflict.places.iter();
        let places: Vec<String> = places.map(|p| format!("\n  {p}")).collect();
        parts.push(format!("conflict: {}{}", conflict.message, places.concat()));
    }
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
