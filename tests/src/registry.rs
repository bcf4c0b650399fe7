//! An image registry for one test (Debian's docker-registry) on a free port of loopback, and a way to push to it without
//! a container engine: a layer made here, its configuration and its manifest.

use crate::{Api, eventually, world::free_port};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// A running registry, ended and deleted on drop.
pub struct Registry {
    child: Child,
    folder: PathBuf,
    /// `127.0.0.1:PORT`
    pub host: String,
}

impl Registry {
    pub fn start() -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("ift-registry-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let host = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            folder.display()
        );
        std::fs::write(folder.join("config.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry; run `make deps`");
        let registry = Self { child, folder, host };
        let api = registry.api();
        eventually("the registry answers", Duration::from_secs(30), || {
            api.try_call("GET", "/v2/", None).is_ok_and(|reply| reply.status == 200).then_some(())
        });
        registry
    }

    fn api(&self) -> Api {
        Api::new(format!("http://{}", self.host), None)
    }

    /// Pushes a one-layer image of the given root file system; returns its reference.
    pub fn push(&self, name: &str, tag: &str, layer: &[u8], config: Value) -> String {
        let zipped = gzip(layer);
        let mut config = config;
        config["architecture"] = json!("amd64");
        config["os"] = json!("linux");
        config["rootfs"] = json!({ "type": "layers", "diff_ids": [digest(layer)] });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(), "digest": digest(&config) },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": zipped.len(), "digest": digest(&zipped) }],
        });
        self.blob(name, &config);
        self.blob(name, &zipped);
        let put = self.curl(
            &format!("/v2/{name}/manifests/{tag}"),
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        );
        assert_eq!(put, "201", "the manifest was not taken");
        format!("{}/{name}:{tag}", self.host)
    }

    fn blob(&self, name: &str, bytes: &[u8]) {
        let started = self.api().call("POST", &format!("/v2/{name}/blobs/uploads/"), Some(Vec::new()));
        let location = started.header("location").expect("where to upload").to_owned();
        let path = location.strip_prefix(&format!("http://{}", self.host)).unwrap_or(&location);
        let put = self.curl(&format!("{path}&digest={}", digest(bytes)), "application/octet-stream", bytes);
        assert_eq!(put, "201", "the blob was not taken");
    }

    /// A PUT with a content type of its own; returns the status.
    fn curl(&self, path: &str, kind: &str, body: &[u8]) -> String {
        let file = self.folder.join("body");
        std::fs::write(&file, body).unwrap();
        let mut command = Command::new("curl");
        command.args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-X",
            "PUT",
            "-H",
            &format!("Content-Type: {kind}"),
        ]);
        command.args([
            "--noproxy",
            "*",
            "--data-binary",
            &format!("@{}", file.display()),
            &format!("http://{}{path}", self.host),
        ]);
        crate::process::succeeded(&crate::process::run(&mut command, Duration::from_secs(60)))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// `sha256:…` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A tar with one executable at `/hello`: a program without libraries that prints its greeting.
pub fn one_program() -> Vec<u8> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("ift-hello-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, binary) = (folder.join("hello.c"), folder.join("hello"));
    std::fs::write(&source, "#include <stdio.h>\nint main(void) { puts(\"hello from one program\"); return 0; }\n")
        .unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-static", "-O1", "-o"]).arg(&binary).arg(&source);
    crate::process::succeeded(&crate::process::run(&mut gcc, Duration::from_secs(60)));
    let mut archive = tar::Builder::new(Vec::new());
    let bytes = std::fs::read(&binary).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o755);
    header.set_cksum();
    archive.append_data(&mut header, "hello", bytes.as_slice()).unwrap();
    let _ = std::fs::remove_dir_all(&folder);
    archive.into_inner().unwrap()
}
