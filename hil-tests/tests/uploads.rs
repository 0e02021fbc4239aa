//! Recipes that are uploaded to a station: checked, kept, activated and removed, and what orders are made by, on the
//! virtual line.

use std::{fs, path::Path, process::Command};

use data_encoding::HEXLOWER;
use factory_hil_tests::{
    mes::line::{self, Assembly},
    rig::{RECIPE, Rig, free_address},
};
use factory_proto::station::{
    ActivateRecipeRequest, CloseWorkOrderRequest, ListRecipesRequest, OpenWorkOrderRequest, Outcome,
    RecipeDescription, RecipeOrigin, RemoveRecipeRequest, UploadRecipeChunk, UploadRecipeRequest,
    UploadRecipeStart, station_client::StationClient, upload_recipe_request::Part,
};
use tonic::{Code, Status, transport::Channel};
use uuid::Uuid;

type Station = StationClient<Channel>;
/// Files by name, as they are sent.
type Files = Vec<(String, Vec<u8>)>;

async fn line(folder: &Path) -> anyhow::Result<(Rig, Station)> {
    let programs = Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder");
    let mut rig = Rig::build(folder, programs, &["A"], &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::attest(&rig, &mut station).await?;
    Ok((rig, station))
}

async fn again(rig: &mut Rig) -> anyhow::Result<Station> {
    rig.kill_station()?;
    rig.start_station()?;
    Ok(StationClient::connect(rig.station.clone()).await?)
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("it should be refused");
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(text), "{status}");
}

/// All that is in the folder of recipes.
fn files(rig: &Rig) -> anyhow::Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(rig.folder.join("recipes"))? {
        let path = entry?.path();
        files.push((path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path)?));
    }
    files.sort();
    Ok(files)
}

fn start(command: Uuid, recipe: &str) -> UploadRecipeRequest {
    let start = UploadRecipeStart { command_id: command.to_string(), recipe: recipe.to_owned() };
    UploadRecipeRequest { part: Some(Part::Start(start)) }
}

fn piece(file: &str, data: &[u8]) -> UploadRecipeRequest {
    let chunk = UploadRecipeChunk { file: file.to_owned(), data: data.to_vec() };
    UploadRecipeRequest { part: Some(Part::Chunk(chunk)) }
}

async fn upload(station: &mut Station, command: Uuid, files: &Files) -> Result<Vec<u8>, Status> {
    let mut messages = vec![start(command, RECIPE)];
    for (name, bytes) in files {
        messages.extend(bytes.chunks(10_000).map(|bytes| piece(name, bytes)));
    }
    Ok(station.upload_recipe(tokio_stream::iter(messages)).await?.into_inner().recipe_digest)
}

async fn activate(station: &mut Station, command: Uuid, recipe_digest: &[u8]) -> Result<(), Status> {
    let request = ActivateRecipeRequest {
        command_id: command.to_string(),
        recipe: RECIPE.to_owned(),
        recipe_digest: recipe_digest.to_vec(),
    };
    station.activate_recipe(request).await.map(drop)
}

async fn remove(station: &mut Station, command: Uuid, recipe_digest: &[u8]) -> Result<(), Status> {
    let request = RemoveRecipeRequest {
        command_id: command.to_string(),
        recipe: RECIPE.to_owned(),
        recipe_digest: recipe_digest.to_vec(),
    };
    station.remove_recipe(request).await.map(drop)
}

async fn listed(station: &mut Station) -> anyhow::Result<Vec<RecipeDescription>> {
    Ok(station.list_recipes(ListRecipesRequest {}).await?.into_inner().recipes)
}

/// The recipe's file says something else from now on.
fn change(rig: &Rig, from: &str, to: &str) -> anyhow::Result<()> {
    rig.edit("recipes/sensor.toml", from, to)?;
    rig.sign_images()
}

async fn open(
    rig: &Rig,
    station: &mut Station,
    order: &str,
    signed: &[u8],
    named: &[u8],
) -> Result<(), Status> {
    let request = OpenWorkOrderRequest {
        command_id: Uuid::now_v7().to_string(),
        work_order: order.to_owned(),
        recipe: RECIPE.to_owned(),
        quantity: 3,
        signed_order: rig.sign_order_for(&HEXLOWER.encode(signed), order, 3).unwrap(),
        recipe_digest: named.to_vec(),
        ..OpenWorkOrderRequest::default()
    };
    station.open_work_order(request).await.map(drop)
}

const HERE: &str = "rev-a";
const THERE: &str = "rev-b";

#[tokio::test]
async fn an_order_is_made_by_the_recipe_that_it_was_opened_with_whatever_is_active_since()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    let [of_folder] = &listed(&mut station).await?[..] else { panic!("there is one recipe") };
    let old = of_folder.recipe_digest.clone();
    assert!(of_folder.active && of_folder.origin() == RecipeOrigin::Folder);
    // Beside the folder, which is about to change.
    assert_eq!(upload(&mut station, Uuid::now_v7(), &files(&rig)?).await?, old);
    open(&rig, &mut station, "WO-old", &old, &[]).await?;

    change(&rig, HERE, THERE)?;
    let ctl = Path::new(env!("CARGO_BIN_EXE_sim-target")).with_file_name("stationctl");
    let stationctl = |arguments: &[&str]| {
        let mut ctl = Command::new(&ctl);
        ctl.current_dir(&rig.folder).arg("--station").arg(&rig.station).arg("recipe").args(arguments);
        let done = ctl.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let new = HEXLOWER.decode(stationctl(&["upload", "recipes/sensor.toml"]).trim().as_bytes())?;
    assert_ne!(new, old);
    let command = Uuid::now_v7();
    assert_eq!(upload(&mut station, command, &files(&rig)?).await?, new);
    assert_eq!(upload(&mut station, command, &files(&rig)?).await?, new);
    let text = "was used before, for UploadRecipe or with other contents";
    refused(activate(&mut station, command, &new).await, Code::AlreadyExists, text);
    // It is there, and nobody has said that it counts.
    let text = "is for a recipe with SHA-256";
    refused(open(&rig, &mut station, "WO-new", &new, &[]).await, Code::FailedPrecondition, text);
    open(&rig, &mut station, "WO-named", &new, &new).await?;
    refused(
        activate(&mut station, Uuid::now_v7(), &[7; 32]).await,
        Code::NotFound,
        "does not hold recipe sensor",
    );
    let activated = Uuid::now_v7();
    activate(&mut station, activated, &new).await?;
    open(&rig, &mut station, "WO-new", &new, &[]).await?;
    // The same as before, though another one is active.
    open(&rig, &mut station, "WO-old", &old, &[]).await?;

    // The folder has the new one only.
    let mut station = again(&mut rig).await?;
    let shown: Vec<_> =
        listed(&mut station).await?.into_iter().map(|it| (it.recipe_digest, it.active, it.used_by)).collect();
    let orders = |orders: &[&str]| orders.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut expected =
        vec![(old.clone(), false, orders(&["WO-old"])), (new.clone(), true, orders(&["WO-named", "WO-new"]))];
    expected.sort();
    assert_eq!(shown, expected);
    for (order, number, digest) in [("WO-old", 1, &old), ("WO-new", 2, &new)] {
        let unit = line::make_one(&rig, &mut station, order, "A", &Assembly::sound(number)).await?;
        assert_eq!((unit.outcome(), &unit.recipe_digest), (Outcome::Pass, digest), "{}", unit.reason);
    }

    // The folder has the old one again, and what was activated counts.
    change(&rig, THERE, HERE)?;
    let mut station = again(&mut rig).await?;
    let active =
        |recipes: Vec<RecipeDescription>| recipes.into_iter().find(|it| it.active).unwrap().recipe_digest;
    assert_eq!(active(listed(&mut station).await?), new);
    refused(
        remove(&mut station, Uuid::now_v7(), &new).await,
        Code::FailedPrecondition,
        "activate another one first",
    );
    activate(&mut station, Uuid::now_v7(), &old).await?;
    // A command that comes late changes nothing.
    activate(&mut station, activated, &new).await?;
    assert_eq!(active(listed(&mut station).await?), old);
    let text = "work orders were opened with this recipe sensor: WO-named, WO-new; close them first";
    refused(remove(&mut station, Uuid::now_v7(), &new).await, Code::FailedPrecondition, text);
    for order in ["WO-named", "WO-new"] {
        let request = CloseWorkOrderRequest {
            command_id: Uuid::now_v7().to_string(),
            work_order: order.to_owned(),
            reason: "enough".to_owned(),
            even_if_open: true,
        };
        station.close_work_order(request).await?;
    }
    let removed = Uuid::now_v7();
    remove(&mut station, removed, &new).await?;
    let mut station = again(&mut rig).await?;
    remove(&mut station, removed, &new).await?;
    let left: Vec<_> = listed(&mut station).await?.into_iter().map(|it| it.recipe_digest).collect();
    assert_eq!(left, std::slice::from_ref(&old));
    refused(remove(&mut station, Uuid::now_v7(), &new).await, Code::NotFound, "does not hold recipe sensor");
    Ok(())
}

#[tokio::test]
async fn what_is_no_good_recipe_is_not_kept() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path()).await?;
    let good = files(&rig)?;
    let without = |name: &str| good.iter().filter(|(file, _)| file != name).cloned().collect::<Files>();
    let with = |name: &str, bytes: &[u8]| {
        let mut files = without(name);
        files.push((name.to_owned(), bytes.to_vec()));
        files
    };
    let recipe = String::from_utf8(good.iter().find(|(file, _)| file == "sensor.toml").unwrap().1.clone())?;
    let unsigned = "sensor.toml is not signed (sensor.toml.sig";
    let altered = "sensor.toml is not what was signed by the key of";
    for (files, text) in [
        (without("sensor.toml"), "sensor.toml did not come"),
        (without("sensor.toml.sig"), unsigned),
        (without("hilfw.elf"), "hilfw.elf cannot be read"),
        (without("hilfw.elf.sig"), "hilfw.elf is not signed"),
        (with("hilfw.elf", b"another"), "hilfw.elf is not what was signed by the key of"),
        (with("sensor.toml", recipe.replace("1.", "2.").as_bytes()), altered),
        (with("sensor.toml", &[0xff; 64]), "sensor.toml"),
        (with("sensor.toml", &vec![b'#'; 300 * 1024]), "sensor.toml is longer than 256 KiB"),
        (with("more.bin", b"x"), "the recipe does not name more.bin"),
        (with("../sensor.toml", b"x"), "\"../sensor.toml\" is no name for a file"),
        (with(".sensor.toml", b"x"), "\".sensor.toml\" is no name for a file"),
        (with("", b"x"), "\"\" is no name for a file"),
        ([good.clone(), vec![("sensor.toml".to_owned(), b"x".to_vec())]].concat(), "sensor.toml comes twice"),
        ((0..65).map(|number| (format!("{number}"), vec![0])).collect(), "there are more than 64 files"),
    ] {
        refused(upload(&mut station, Uuid::now_v7(), &files).await, Code::InvalidArgument, text);
    }
    for (from, to) in
        [("\"hilfw.elf\"", "\"../recipes/hilfw.elf\""), ("\"bootstrap-ca.pem\"", "\"/etc/hostname\"")]
    {
        change(&rig, from, to)?;
        let text = "must be the name of a file beside the recipe: it is uploaded with it";
        refused(upload(&mut station, Uuid::now_v7(), &files(&rig)?).await, Code::InvalidArgument, text);
        change(&rig, to, from)?;
    }
    let bare = UploadRecipeRequest { part: None };
    for (messages, text) in [
        (vec![], "the first message must hold `start`"),
        (vec![piece("sensor.toml", b"x")], "the first message must hold `start`"),
        (vec![start(Uuid::now_v7(), "../sensor")], "recipe: "),
        (vec![start(Uuid::now_v7(), RECIPE), start(Uuid::now_v7(), RECIPE)], "`start` may come once only"),
        (vec![start(Uuid::now_v7(), RECIPE), bare], "part: is missing"),
    ] {
        let answer = station.upload_recipe(tokio_stream::iter(messages)).await;
        refused(answer, Code::InvalidArgument, text);
    }
    // Nothing is left of any of it, and there is room for the next.
    assert_eq!(fs::read_dir(folder.path().join("journal/recipes"))?.count(), 0);
    assert_eq!(listed(&mut station).await?.len(), 1);
    upload(&mut station, Uuid::now_v7(), &good).await?;
    Ok(())
}

#[tokio::test]
async fn an_uploaded_recipe_that_was_changed_on_the_disk_is_told_and_stops_nothing_else() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    change(&rig, HERE, THERE)?;
    let new = upload(&mut station, Uuid::now_v7(), &files(&rig)?).await?;
    let kept = folder.path().join("journal/recipes").join(HEXLOWER.encode(&new)).join(RECIPE);
    fs::write(kept.join("hilfw.elf"), "another")?;
    change(&rig, THERE, HERE)?;
    // As an upload leaves it that was cut off by the station's end.
    let unfinished = folder.path().join("journal/recipes/.incoming-1");
    fs::create_dir(&unfinished)?;
    let mut station = again(&mut rig).await?;
    let broken: Vec<_> =
        listed(&mut station).await?.into_iter().filter(|it| !it.complaint.is_empty()).collect();
    assert!(!unfinished.exists());
    let [broken] = &broken[..] else { panic!("{broken:?}") };
    assert!(broken.recipe_digest == new && broken.complaint.contains("is not what was signed"), "{broken:?}");
    let text = "cannot be used any more: ";
    refused(activate(&mut station, Uuid::now_v7(), &new).await, Code::FailedPrecondition, text);
    // It is mended by the same again.
    change(&rig, HERE, THERE)?;
    assert_eq!(upload(&mut station, Uuid::now_v7(), &files(&rig)?).await?, new);
    activate(&mut station, Uuid::now_v7(), &new).await?;
    Ok(())
}
