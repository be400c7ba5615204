//! Builds an image with throw-away keys: `build lock RECIPE.toml BOARD.toml`, or
//! `build RECIPE.toml BOARD.toml INIT AGENT LOADER OUTPUT_DIR [K3S_STAND_IN]`.

use std::{path::Path, sync::Arc};

use holdfast_core::{
    cluster::ClusterId,
    keys::PrivateKey,
    releases::{ReleaseList, add_signature},
};
use holdfast_image::{
    Binaries, Board, BuildRequest, Cache, Event, Outputs, Recipe, Relock, Signing, Sources, build,
    lock,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let progress = Arc::new(|event: Event<'_>| match event {
        Event::Done { step, cached, took } => println!(
            "{step}: {took:.2?}{}",
            if cached { " (cached)" } else { "" }
        ),
        Event::Note(text) => println!("{text}"),
        _ => {}
    });
    let cache = Cache::open(Cache::default_dir()?)?;
    match args[..] {
        ["lock", recipe, ref boards @ ..] => {
            let recipe = Recipe::read(Path::new(recipe))?;
            let boards = boards
                .iter()
                .map(|b| Board::read(Path::new(b)))
                .collect::<Result<Vec<_>, _>>()?;
            let lock = lock(&recipe, &boards, &Sources::default(), &cache, progress)?;
            println!("{} packages", lock.packages.len());
        }
        [recipe, board, init, agent, loader, output, ref rest @ ..] => {
            let request = BuildRequest {
                recipe: Recipe::read(Path::new(recipe))?,
                board: Board::read(Path::new(board))?,
                version: "0.1.0-example".into(),
                generation: 1,
                binaries: Binaries {
                    init: init.into(),
                    agent: agent.into(),
                    loader: loader.into(),
                },
                signing: throw_away_keys()?,
                k3s_stand_in: rest.first().map(Into::into),
                sources: Sources::default(),
                cache,
                output_dir: output.into(),
                outputs: Outputs {
                    raw: true,
                    qcow2: true,
                    bundle: true,
                    sbom: true,
                },
                relock: Relock::WhenGone,
            };
            println!(
                "{}",
                serde_json::to_string_pretty(&build(&request, progress)?)?
            );
        }
        _ => return Err("see the top of image/examples/build.rs for the arguments".into()),
    }
    Ok(())
}

fn throw_away_keys() -> Result<Signing, Box<dyn std::error::Error>> {
    let (root, release_key) = (
        PrivateKey::from_bytes([1; 32]),
        PrivateKey::from_bytes([2; 32]),
    );
    let cluster = ClusterId([3; 16]);
    let mut release_list = ReleaseList::new(cluster.0, 1, &[release_key.public().0])?.encode();
    add_signature(&mut release_list, &root.public().0, |bytes| {
        root.sign(bytes).0
    })?;
    Ok(Signing {
        cluster,
        roots: vec![root.public()],
        release_list,
        release_key,
    })
}
