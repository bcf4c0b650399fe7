//! Pulling from Debian's real docker-registry on loopback, and from registries that misbehave.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where by panicking.

mod image_support;

use image_support::{
    Entry, Overlay, Scratch,
    registry::{RealRegistry, Scripted, USER, cutting_proxy, digest},
    tar,
};
use infield_engine::image::{
    Credentials, Image, ImageError, Platform, Progress, PullOptions, Reach, RegistriesConfig, Silent, Store, Unit,
};
use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn pull(scratch: &Scratch, reference: &str, options: &PullOptions) -> Result<Arc<Image>, ImageError> {
    pull_with(scratch, reference, options, &Silent)
}

fn pull_with(
    scratch: &Scratch,
    reference: &str,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Arc<Image>, ImageError> {
    let store = Arc::new(Store::open(scratch.path("store")).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(store.pull(reference, options, progress))
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut stored = Vec::new();
    flate2::read::GzEncoder::new(plain, flate2::Compression::fast()).read_to_end(&mut stored).unwrap();
    stored
}

/// Pushes an image of the given layers as (tar, stored form); returns its manifest.
fn push(registry: &RealRegistry, name: &str, architecture: &str, layers: &[(Vec<u8>, Vec<u8>)], kind: &str) -> String {
    let (config_type, layer_type) = match kind {
        DOCKER_MANIFEST => {
            ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip")
        }
        _ => ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"),
    };
    let diff_ids: Vec<_> = layers.iter().map(|(plain, _)| format!("{:?}", digest(plain))).collect();
    let config = format!(
        r#"{{"created":"2024-01-02T03:04:05Z","architecture":"{architecture}","os":"linux",
            "config":{{"Env":["PATH=/bin"],"Entrypoint":["/e"],"Cmd":["c"],"User":"1000","WorkingDir":"/w"}},
            "rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    registry.push_blob(name, config.as_bytes());
    let layers: Vec<_> = layers
        .iter()
        .map(|(_, stored)| {
            let digest = registry.push_blob(name, stored);
            format!(r#"{{"mediaType":"{layer_type}","digest":"{digest}","size":{}}}"#, stored.len())
        })
        .collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}",
            "config":{{"mediaType":"{config_type}","digest":"{}","size":{}}},"layers":[{}]}}"#,
        digest(config.as_bytes()),
        config.len(),
        layers.join(",")
    )
}

fn host_architecture() -> String {
    Platform::host().architecture
}

fn platform(architecture: &str) -> PullOptions {
    let platform = Platform { os: "linux".into(), architecture: architecture.into(), variant: None };
    PullOptions { platform: Some(platform), ..PullOptions::default() }
}

/// One uncompressed layer with one file.
fn push_small(registry: &RealRegistry, name: &str) -> String {
    let layer = tar(&[Entry::file("file", name)]);
    let manifest = push(registry, name, &host_architecture(), &[(layer.clone(), layer)], OCI_MANIFEST);
    registry.push_manifest(name, "1", OCI_MANIFEST, &manifest)
}

#[test]
fn an_image_of_every_kind_of_layer_mounts_as_it_was_built() {
    let scratch = Scratch::new();
    let registry = RealRegistry::start(&scratch);
    let capability = b"\x01\x00\x00\x02\x0a\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let base = tar(&[
        Entry::dir("etc"),
        Entry::file("etc/hidden", "x"),
        Entry::dir("opaque").mode(0o750).owned(7, 8),
        Entry::file("opaque/below", "x"),
        Entry::file("bin/tool", "#!").mode(0o4755).xattr("security.capability", capability),
        Entry::hardlink("bin/same", "bin/tool"),
        Entry::file("replaced", "old"),
    ]);
    let middle =
        tar(&[Entry::file("etc/.wh.hidden", ""), Entry::file("replaced", "new"), Entry::symlink("link", "replaced")]);
    let top = tar(&[
        Entry::dir("opaque").mode(0o700),
        Entry::file("opaque/.wh..wh..opq", ""),
        Entry::file("opaque/above", "y"),
    ]);
    let layers =
        [(base.clone(), gzip(&base)), (middle.clone(), zstd::encode_all(&middle[..], 3).unwrap()), (top.clone(), top)];
    // A list of platforms, ours not the first.
    let ours = push(&registry, "team/app", &host_architecture(), &layers, OCI_MANIFEST);
    let other = push(&registry, "team/app", "s390x", &layers[..1], DOCKER_MANIFEST);
    let entry = |manifest: &str, kind: &str, architecture: &str| {
        let digest = registry.push_manifest("team/app", &digest(manifest.as_bytes()), kind, manifest);
        let size = manifest.len();
        format!(
            r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
        )
    };
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{},{}]}}"#,
        entry(&other, DOCKER_MANIFEST, "s390x"),
        entry(&ours, OCI_MANIFEST, &host_architecture())
    );
    let index_digest = registry.push_manifest("team/app", "v1", OCI_INDEX, &index);

    let reference = format!("{}/team/app:v1", registry.host);
    let image = pull(&scratch, &reference, &PullOptions::default()).unwrap();
    assert_eq!(image.references.as_slice(), std::slice::from_ref(&reference));
    assert_eq!((image.layers.len(), image.config.user.as_deref()), (3, Some("1000")));
    assert_eq!(
        (image.config.entrypoint.as_slice(), image.config.workdir.as_deref()),
        (&["/e".to_string()][..], Some("/w"))
    );
    let overlay = Overlay::mount(&scratch, &image.layers);
    let root = &overlay.root;
    assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 0);
    let names: Vec<_> = fs::read_dir(root.join("opaque")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["above"]);
    assert_eq!(fs::metadata(root.join("opaque")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_to_string(root.join("link")).unwrap(), "new");
    let (tool, same) = (fs::metadata(root.join("bin/tool")).unwrap(), fs::metadata(root.join("bin/same")).unwrap());
    assert_eq!((tool.ino(), tool.mode() & 0o7777), (same.ino(), 0o4755));
    let mut value = [0; 32];
    let length = rustix::fs::getxattr(root.join("bin/tool"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], capability);
    drop(overlay);

    // By digest, and for another platform when asked.
    let by_digest = format!("{}/team/app@{index_digest}", registry.host);
    assert_eq!(pull(&scratch, &by_digest, &PullOptions::default()).unwrap().id, image.id);
    assert_eq!(pull(&scratch, &reference, &platform("s390x")).unwrap().layers.len(), 1);
    let error = pull(&scratch, &reference, &platform("riscv64")).unwrap_err().to_string();
    assert!(error.contains("riscv64") && error.contains("linux/s390x"), "{error}");
}

/// Adds up what was downloaded.
#[derive(Default)]
struct Downloaded {
    bytes: AtomicU64,
    totals: Mutex<Vec<u64>>,
}

impl Progress for Downloaded {
    fn phase(&self, _name: &str) {}
    fn total(&self, amount: u64, unit: Unit) {
        assert_eq!(unit, Unit::Bytes);
        self.totals.lock().unwrap().push(amount);
    }
    fn advance(&self, amount: u64) {
        self.bytes.fetch_add(amount, Ordering::SeqCst);
    }
}

/// Bytes no compression or proxy buffer makes small.
fn noise(length: usize) -> String {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state % 26) as u8)
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_broken_download_goes_on_where_it_broke_and_known_layers_are_not_fetched() {
    let scratch = Scratch::new();
    let registry = RealRegistry::start(&scratch);
    let (big, small) = (tar(&[Entry::file("big", &noise(1 << 20))]), tar(&[Entry::file("small", "x")]));
    let layers = [(big.clone(), big.clone()), (small.clone(), small.clone())];
    for (tag, count) in [("one", 1), ("two", 2)] {
        let manifest = push(&registry, "app", &host_architecture(), &layers[..count], OCI_MANIFEST);
        registry.push_manifest("app", tag, OCI_MANIFEST, &manifest);
    }
    let proxy = cutting_proxy(&registry.host, 3, 200_000);
    let seen = Downloaded::default();
    let image = pull_with(&scratch, &format!("{}/app:one", proxy.host), &PullOptions::default(), &seen).unwrap();
    // Every byte once: nothing was fetched again after the cuts.
    assert_eq!(seen.bytes.load(Ordering::SeqCst), big.len() as u64);
    assert_eq!(fs::metadata(image.layers[0].join("big")).unwrap().len(), 1 << 20);

    let seen = Downloaded::default();
    pull_with(&scratch, &format!("{}/app:two", registry.host), &PullOptions::default(), &seen).unwrap();
    assert_eq!(*seen.totals.lock().unwrap(), [small.len() as u64]);
    assert_eq!(seen.bytes.load(Ordering::SeqCst), small.len() as u64);

    let proxy = cutting_proxy(&registry.host, usize::MAX, 200_000);
    let scratch = Scratch::new();
    let error = pull(&scratch, &format!("{}/app:one", proxy.host), &PullOptions::default()).unwrap_err();
    // Five tries of 200 kB are not enough for a megabyte.
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
    assert_eq!(fs::read_dir(scratch.path("store/tmp")).unwrap().count(), 0);
}

#[test]
fn a_password_is_needed_where_one_is_asked_for() {
    let scratch = Scratch::new();
    let registry = RealRegistry::start_with_password(&scratch);
    push_small(&registry, "private");
    let reference = format!("{}/private:1", registry.host);
    let error = pull(&scratch, &reference, &PullOptions::default()).unwrap_err();
    assert!(matches!(&error, ImageError::Unauthorized { hint, .. } if hint.contains("give a user name")), "{error}");
    let credentials = |password: &str| Credentials { username: USER.0.into(), password: password.into() };
    let options = |password| PullOptions { auth: Some(credentials(password)), ..PullOptions::default() };
    let error = pull(&scratch, &reference, &options("wr0ng")).unwrap_err();
    assert!(matches!(&error, ImageError::Unauthorized { hint, .. } if hint.contains("check user name")), "{error}");
    assert!(!error.to_string().contains("wr0ng") && !format!("{:?}", options("wr0ng")).contains("wr0ng"));
    pull(&scratch, &reference, &options(USER.1)).unwrap();
    // Or from the file.
    let file = scratch.path(RegistriesConfig::FILE);
    let (host, (user, password)) = (&registry.host, USER);
    let text = format!(r#"{{"credentials":{{"{host}":{{"username":"{user}","password":"{password}"}}}}}}"#);
    fs::write(&file, text).unwrap();
    let options = PullOptions { registries: RegistriesConfig::load(&file).unwrap(), ..PullOptions::default() };
    pull(&scratch, &reference, &options).unwrap();
}

#[test]
fn what_does_not_match_its_digest_is_refused_and_nothing_is_kept() {
    for part in ["layer", "config", "manifest"] {
        let scratch = Scratch::new();
        let registry = RealRegistry::start(&scratch);
        let layer = tar(&[Entry::file("file", "honest")]);
        let manifest = push(&registry, "app", &host_architecture(), &[(layer.clone(), layer.clone())], OCI_MANIFEST);
        let manifest_digest = registry.push_manifest("app", "1", OCI_MANIFEST, &manifest);
        let parsed: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        let (forged, reference) = match part {
            "layer" => (digest(&layer), format!("{}/app:1", registry.host)),
            "config" => (parsed["config"]["digest"].as_str().unwrap().into(), format!("{}/app:1", registry.host)),
            _ => (manifest_digest.clone(), format!("{}/app@{manifest_digest}", registry.host)),
        };
        // One byte, so that the archive and the JSON stay valid.
        let (from, to) = if part == "layer" { ("honest", "Honest") } else { ("\"c", "\"d") };
        registry.forge(&forged, |bytes| {
            *bytes = String::from_utf8(bytes.clone()).unwrap().replacen(from, to, 1).into_bytes();
        });
        let error = pull(&scratch, &reference, &PullOptions::default()).unwrap_err();
        match &error {
            ImageError::Digest { expected, .. } => assert_eq!(*expected, forged),
            // docker-registry itself notices a forged manifest.
            _ => assert!(
                part == "manifest" && !matches!(error, ImageError::Refused { .. } | ImageError::Io { .. }),
                "{part}: {error}"
            ),
        }
        for dir in ["layers", "configs", "refs", "tmp"] {
            assert_eq!(fs::read_dir(scratch.path("store").join(dir)).unwrap().count(), 0, "{part}: {dir}");
        }
    }
}

#[test]
fn a_layer_that_unpacks_to_something_else_is_refused() {
    let scratch = Scratch::new();
    let registry = RealRegistry::start(&scratch);
    let (promised, served) = (tar(&[Entry::file("file", "a")]), tar(&[Entry::file("file", "b")]));
    let manifest = push(&registry, "app", &host_architecture(), &[(promised.clone(), gzip(&served))], OCI_MANIFEST);
    registry.push_manifest("app", "1", OCI_MANIFEST, &manifest);
    let error = pull(&scratch, &format!("{}/app:1", registry.host), &PullOptions::default()).unwrap_err();
    assert!(matches!(&error, ImageError::Digest { expected, .. } if *expected == digest(&promised)), "{error}");
    assert_eq!(fs::read_dir(scratch.path("store/layers")).unwrap().count(), 0);
}

#[test]
fn a_hostile_layer_is_refused_by_the_name_of_its_entry() {
    let scratch = Scratch::new();
    let registry = RealRegistry::start(&scratch);
    let layer = tar(&[Entry::file("../../../tmp/infield-evil", "x")]);
    let manifest = push(&registry, "app", &host_architecture(), &[(layer.clone(), gzip(&layer))], OCI_MANIFEST);
    registry.push_manifest("app", "1", OCI_MANIFEST, &manifest);
    let error = pull(&scratch, &format!("{}/app:1", registry.host), &PullOptions::default()).unwrap_err();
    assert!(matches!(&error, ImageError::Refused { entry, .. } if entry.contains("infield-evil")), "{error}");
    assert!(!std::path::Path::new("/tmp/infield-evil").exists());
}

#[test]
fn what_is_not_there_is_told_apart() {
    let scratch = Scratch::new();
    let registry = RealRegistry::start(&scratch);
    push_small(&registry, "app");
    for name in ["app:2", "other:1"] {
        let reference = format!("{}/{name}", registry.host);
        let error = pull(&scratch, &reference, &PullOptions::default()).unwrap_err();
        assert!(matches!(&error, ImageError::NotInRegistry { reference: r, .. } if *r == reference), "{error}");
    }
    // A closed port; and a registry without TLS under a name that needs it.
    let error = pull(&scratch, "127.0.0.1:9/app:1", &PullOptions::default()).unwrap_err().to_string();
    assert!(error.contains("cannot be reached") && error.contains("configure a mirror"), "{error}");
    let tls = PullOptions {
        registries: RegistriesConfig {
            mirrors: [("tls.invalid".to_string(), vec![format!("https://{}", registry.host)])].into(),
            ..RegistriesConfig::default()
        },
        ..PullOptions::default()
    };
    let error = pull(&scratch, "tls.invalid/app:1", &tls).unwrap_err().to_string();
    assert!(error.contains("tls.invalid") && error.contains("cannot be reached"), "{error}");
}

#[test]
fn callers_without_rights_reach_this_host_only_through_registries_that_were_named() {
    let scratch = Scratch::new();
    let registry = RealRegistry::start(&scratch);
    push_small(&registry, "app");
    let reach = Some(Arc::new(Reach::new([])));
    let reference = format!("{}/app:1", registry.host);
    let unnamed = PullOptions { reach: reach.clone(), ..PullOptions::default() };
    let port = registry.host.rsplit_once(':').unwrap().1;
    let localhost = format!("localhost:{port}");
    let told: Vec<_> = [registry.host.as_str(), &localhost, "127.0.0.1:9", "169.254.169.254"]
        .map(|host| (host, pull(&scratch, &format!("{host}/app:1"), &unnamed).unwrap_err()))
        .into();
    for (host, error) in &told {
        assert!(matches!(error, ImageError::Forbidden { .. }), "{host}: {error}");
        // Open or closed, it is the same to the caller.
        assert_eq!(error.to_string().replace(host, "HOST"), told[0].1.to_string().replace(told[0].0, "HOST"));
    }
    let named = [
        RegistriesConfig { plain_http: [registry.host.clone()].into(), ..RegistriesConfig::default() },
        RegistriesConfig {
            mirrors: [("any.example".to_string(), vec![format!("http://{}", registry.host)])].into(),
            ..RegistriesConfig::default()
        },
    ];
    for registries in named {
        pull(&scratch, &reference, &PullOptions { registries, ..unnamed.clone() }).unwrap();
    }
    // What a named one answers is still not spelt out.
    let registries = RegistriesConfig { plain_http: ["127.0.0.1:9".to_string()].into(), ..RegistriesConfig::default() };
    let error = pull(&scratch, "127.0.0.1:9/app:1", &PullOptions { registries, ..unnamed }).unwrap_err();
    assert!(matches!(&error, ImageError::Unreachable { why, .. } if why.contains("log")), "{error}");
    assert!(!error.to_string().contains("refused"), "{error}");
}

#[test]
fn a_mirror_serves_short_names_and_a_dead_one_is_passed_over() {
    let scratch = Scratch::new();
    let registry = RealRegistry::start(&scratch);
    push_small(&registry, "library/python");
    let mirrors = vec!["127.0.0.1:9".to_string(), registry.host.clone()];
    let registries =
        RegistriesConfig { mirrors: [("docker.io".to_string(), mirrors)].into(), ..RegistriesConfig::default() };
    let options = PullOptions { registries, ..PullOptions::default() };
    let image = pull(&scratch, "python:1", &options).unwrap();
    assert_eq!(image.references, ["python:1"]);
    assert_eq!(scratch.store().resolve("docker.io/library/python:1").unwrap().id, image.id);
}

#[test]
fn tokens_are_fetched_where_the_registry_says_and_sent_only_there() {
    let scratch = Scratch::new();
    let layer = tar(&[Entry::file("file", "x")]);
    let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#, digest(&layer));
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":{}}},"layers":[{{"digest":"{}","size":{}}}]}}"#,
        digest(config.as_bytes()),
        config.len(),
        digest(&layer),
        layer.len()
    );
    let blobs = [config.clone().into_bytes(), layer.clone()];
    let storage = Scripted::start(move |_, asked| {
        let blob = blobs.iter().find(|blob| asked.path.ends_with(&digest(blob)));
        blob.map_or((404, String::new(), Vec::new()), |blob| (200, String::new(), blob.clone()))
    });
    let storage_host = storage.host.clone();
    let registry = Scripted::start(move |own, asked| match asked.path.as_str() {
        path if path.starts_with("/token?") => (200, String::new(), br#"{"access_token":"t0ken"}"#.to_vec()),
        _ if asked.authorization.as_deref() != Some("Bearer t0ken") => {
            let challenge = format!("www-authenticate: Bearer realm=\"http://{own}/token\",service=\"reg,istry\"\r\n");
            (401, challenge, Vec::new())
        }
        path if path.contains("/manifests/") => (200, String::new(), manifest.clone().into_bytes()),
        // Blobs lie on another host, as with every big registry; `localhost` is another host than 127.0.0.1.
        path => {
            let port = storage_host.rsplit(':').next().unwrap();
            (307, format!("location: http://localhost:{port}{path}\r\n"), Vec::new())
        }
    });
    let auth = Some(Credentials { username: "u".into(), password: "p".into() });
    let options = PullOptions { auth, ..PullOptions::default() };
    pull(&scratch, &format!("{}/app:1", registry.host), &options).unwrap();
    let asked = registry.asked.lock().unwrap();
    let tokens: Vec<_> = asked.iter().filter(|line| line.starts_with("/token")).collect();
    assert_eq!(tokens, ["/token?scope=repository%3Aapp%3Apull&service=reg%2Cistry Basic dTpw"]);
    let storage = storage.asked.lock().unwrap();
    assert!(storage.len() == 2 && storage.iter().all(|line| line.ends_with(" -")), "{storage:?}");
}

#[test]
fn an_endless_answer_is_cut_off() {
    let scratch = Scratch::new();
    let registry = Scripted::start(|_, _| (200, String::new(), vec![b' '; 8 << 20]));
    let error = pull(&scratch, &format!("{}/app:1", registry.host), &PullOptions::default()).unwrap_err().to_string();
    assert!(error.contains("larger than"), "{error}");
}

/// A self-signed certificate for 127.0.0.1 and its key.
fn certificate(scratch: &Scratch, name: &str) -> (PathBuf, PathBuf) {
    let (key, certificate) = (scratch.path(&format!("{name}.key")), scratch.path(&format!("{name}.pem")));
    let config = scratch.path("openssl.conf");
    let text = "[req]\ndistinguished_name = dn\nx509_extensions = ext\nprompt = no\n[dn]\nCN = 127.0.0.1\n\
                [ext]\nsubjectAltName = IP:127.0.0.1\nbasicConstraints = critical, CA:FALSE\n";
    fs::write(&config, text).unwrap();
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-config",
        ])
        .arg(&config)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("this test needs the openssl command");
    assert!(made.status.success(), "{made:?}");
    (key, certificate)
}

#[test]
fn only_a_named_certificate_authority_is_trusted() {
    let scratch = Scratch::new();
    let (key, own) = certificate(&scratch, "own");
    let (_, other) = certificate(&scratch, "other");
    let tls =
        format!("http: {{addr: \"127.0.0.1:0\", tls: {{certificate: {}, key: {}}}}}\n", own.display(), key.display());
    let registry = RealRegistry::start_with(&scratch, &tls, None);
    let ask = |ca: &PathBuf| {
        let ca_files = [(registry.host.clone(), ca.clone())].into();
        let registries = RegistriesConfig { ca_files, ..RegistriesConfig::default() };
        pull(&scratch, &format!("{}/app:1", registry.host), &PullOptions { registries, ..PullOptions::default() })
    };
    // Reached, and found empty.
    let error = ask(&own).unwrap_err();
    assert!(matches!(error, ImageError::NotInRegistry { .. }), "{error}");
    let error = ask(&other).unwrap_err().to_string();
    assert!(error.contains("is not trusted") && error.contains("ca_files"), "{error}");
}
