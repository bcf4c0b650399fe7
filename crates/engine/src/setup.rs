//! Builds the default sandbox image from Debian packages with mmdebstrap, so that a machine without a registry has one.
//! The recipe is data in `images/base/`; here is only how it is run. Blocks for a minute: call from a thread that may.

use crate::image::{Image, ImageConfig, ImageError, Progress, Result, Silent, Store, Unit};
use serde::Deserialize;
use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

const PACKAGES: &str = include_str!("../../../images/base/packages.txt");
const DPKG: &str = include_str!("../../../images/base/dpkg.txt");
const CUSTOMIZE: &str = include_str!("../../../images/base/customize.sh");
const IMAGE: &str = include_str!("../../../images/base/image.json");
/// What of npm is in the image, version and digest of each.
const NPM_PACKAGE: &str = include_str!("../../../images/base/npm/package.json");
const NPM_LOCK: &str = include_str!("../../../images/base/npm/package-lock.json");

/// Name of the default image, and of the default snapshot.
pub const BASE_REFERENCE: &str = "infield/base:1";
/// Label holding the digest of the recipe an image was built from.
const RECIPE_LABEL: &str = "dev.infield.recipe";
/// Raised when the same recipe is run in another way.
const RECIPE_VERSION: &str = "1";
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Lines of mmdebstrap's output kept for an error.
const LOG_LINES_MAX: usize = 40;
const LOG_LINE_BYTES_MAX: usize = 400;

#[derive(Clone, Debug)]
pub struct SetupOptions {
    pub reference: String,
    pub mirror: String,
    /// Where security updates come from; `None` = no security updates (for a mirror that has none).
    pub security_mirror: Option<String>,
    pub suite: String,
    /// In addition to the recipe's own.
    pub packages: Vec<String>,
    /// Install mmdebstrap with apt when it is missing.
    pub install_tools: bool,
    /// Build even when the image is there and up to date.
    pub force: bool,
}

impl Default for SetupOptions {
    fn default() -> Self {
        Self {
            reference: BASE_REFERENCE.into(),
            mirror: "http://deb.debian.org/debian".into(),
            security_mirror: Some("http://deb.debian.org/debian-security".into()),
            suite: "bookworm".into(),
            packages: Vec::new(),
            install_tools: false,
            force: false,
        }
    }
}

#[derive(Deserialize)]
struct Recipe {
    user: String,
    workdir: String,
    env: Vec<String>,
    entrypoint: Vec<String>,
}

/// Returns at once when the image is there and was built from this recipe.
pub fn build_base_image(store: &Store, options: &SetupOptions, progress: &dyn Progress) -> Result<Arc<Image>> {
    let recipe = recipe_digest(options);
    if !options.force
        && let Ok(image) = store.resolve(&options.reference)
        && image.config.labels.get(RECIPE_LABEL) == Some(&recipe)
    {
        return Ok(image);
    }
    check_options(options)?;
    check_tools(options, progress)?;
    let config = config(recipe)?;
    // Swept with everything else in the store's temporary directory, should this process be killed.
    let scratch = store.scratch()?;
    let (mut child, stdout) = spawn(options, scratch.dir())?;
    let log = Arc::new(Mutex::new(VecDeque::new()));
    let stderr = child.stderr.take();
    let imported = thread::scope(|scope| {
        scope.spawn(|| stderr.into_iter().for_each(|stderr| follow(stderr, &log, progress)));
        let output = Output { stdout, child: &mut child };
        // mmdebstrap tells phases of its own; the archive's bytes would only disturb them.
        let imported = store.import_tar(output, &options.reference, &config, &Silent);
        if imported.is_err() {
            // Its output has no reader any more, and the log ends only with it.
            let _ = child.kill();
            let _ = child.wait();
        }
        imported
    });
    imported.map_err(|error| {
        let log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let log: Vec<_> = log.iter().map(String::as_str).collect();
        setup_error(format!("cannot build {}: {}\n{}", options.reference, with_source(&error), log.join("\n")))
    })
}

/// Packages of the recipe and of the caller.
fn packages(options: &SetupOptions) -> Vec<&str> {
    let lines = PACKAGES.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).chain(options.packages.iter().map(String::as_str)).collect()
}

fn recipe_digest(options: &SetupOptions) -> String {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    let packages = options.packages.join(",");
    let files = [PACKAGES, DPKG, CUSTOMIZE, IMAGE, NPM_PACKAGE, NPM_LOCK];
    for part in [RECIPE_VERSION].into_iter().chain(files).chain([options.suite.as_str(), &packages]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

fn config(recipe_digest: String) -> Result<ImageConfig> {
    let recipe: Recipe = serde_json::from_str(IMAGE).map_err(|error| setup_error(format!("images/base: {error}")))?;
    Ok(ImageConfig {
        env: recipe.env,
        entrypoint: recipe.entrypoint,
        cmd: Vec::new(),
        workdir: Some(recipe.workdir),
        user: Some(recipe.user),
        labels: [(RECIPE_LABEL.to_string(), recipe_digest)].into(),
    })
}

/// These become words of a command line and lines of sources.list.
fn check_options(options: &SetupOptions) -> Result<()> {
    let is_word = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-.:/_~%@=[]".contains(c);
        !text.is_empty() && !text.starts_with('-') && text.chars().all(plain)
    };
    let words = [&options.mirror, &options.suite].into_iter().chain(&options.security_mirror).chain(&options.packages);
    match words.into_iter().find(|word| !is_word(word)) {
        Some(word) => Err(setup_error(format!("{word:?} is no usable mirror, suite or package name"))),
        None => Ok(()),
    }
}

fn check_tools(options: &SetupOptions, progress: &dyn Progress) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(setup_error("building the default image needs root: run `sudo infield setup`".into()));
    }
    let missing: Vec<_> = [
        ("mmdebstrap", find_program("mmdebstrap").is_none()),
        ("debian-archive-keyring", !Path::new(DEBIAN_KEYRING).exists()),
    ]
    .into_iter()
    .filter_map(|(package, is_missing)| is_missing.then_some(package))
    .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let hint = format!("apt-get install {}", missing.join(" "));
    if !options.install_tools {
        return Err(setup_error(format!(
            "{} missing: run `{hint}` and repeat, or import an image instead: `infield image import rootfs.tar`",
            missing.join(" and ")
        )));
    }
    progress.phase("installing mmdebstrap");
    for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends"]] {
        let mut apt = Command::new("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        if arguments.len() > 1 {
            apt.args(&missing);
        }
        let output = apt.output().map_err(ImageError::io("cannot run apt-get"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(setup_error(format!("`{hint}` failed: {}", text.trim())));
        }
    }
    Ok(())
}

fn find_program(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/local/bin", "/bin"].iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists())
}

fn spawn(options: &SetupOptions, scratch: &Path) -> Result<(Child, ChildStdout)> {
    let hook = write_recipe(scratch)?;
    // A mount namespace of its own: should it be killed, none of its mounts of /dev and /proc stays in the scratch directory.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "mmdebstrap", "--mode=root", "--variant=minbase"]);
    command.args(["--format=tar", "--verbose", "--aptopt=Acquire::Languages \"none\""]);
    command.args(["--aptopt=Acquire::Retries \"3\"", "--components=main"]);
    for line in DPKG.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        command.arg(format!("--dpkgopt={line}"));
    }
    command.arg(format!("--include={}", packages(options).join(",")));
    command.arg(format!("--customize-hook={}", hook.display()));
    // Standard output is the archive.
    command.args([options.suite.as_str(), "-"]);
    let (mirror, suite) = (&options.mirror, &options.suite);
    command.arg(format!("deb {mirror} {suite} main")).arg(format!("deb {mirror} {suite}-updates main"));
    if let Some(security) = &options.security_mirror {
        command.arg(format!("deb {security} {suite}-security main"));
    }
    command.env("TMPDIR", scratch).env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(ImageError::io("cannot run unshare (package util-linux)"))?;
    let stdout = child.stdout.take().ok_or_else(|| setup_error("mmdebstrap has no output".into()))?;
    Ok((child, stdout))
}

/// Puts the files that the image is finished with into the scratch directory; returns the program among them.
fn write_recipe(scratch: &Path) -> Result<PathBuf> {
    let hook = scratch.join("customize.sh");
    let files = [
        (&hook, CUSTOMIZE),
        (&scratch.join("package.json"), NPM_PACKAGE),
        (&scratch.join("package-lock.json"), NPM_LOCK),
    ];
    for (path, text) in files {
        std::fs::write(path, text).map_err(ImageError::io(format!("cannot write {}", path.display())))?;
    }
    // Package scripts drop to other users and must reach their root directory through this one.
    for path in [&hook, scratch] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
            .map_err(ImageError::io(format!("cannot change the mode of {}", path.display())))?;
    }
    Ok(hook)
}

/// The archive; its end counts only when mmdebstrap succeeded, so that half an image is never named.
struct Output<'a> {
    stdout: ChildStdout,
    child: &'a mut Child,
}

impl Read for Output<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.stdout.read(buffer)?;
        if got == 0 && !buffer.is_empty() {
            let status = self.child.wait()?;
            if !status.success() {
                return Err(io::Error::other(format!("mmdebstrap failed ({status})")));
            }
        }
        Ok(got)
    }
}

/// Reads the log: phases from mmdebstrap, steps from apt and dpkg.
fn follow(stderr: impl Read, log: &Mutex<VecDeque<String>>, progress: &dyn Progress) {
    for line in BufReader::new(stderr).split(b'\n') {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line[..line.len().min(LOG_LINE_BYTES_MAX)]).trim_end().to_string();
        report(&line, progress);
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_LINES_MAX {
            log.pop_front();
        }
        log.push_back(line);
    }
}

fn report(line: &str, progress: &dyn Progress) {
    const PHASES: [(&str, &str); 7] = [
        ("I: running apt-get update", "reading package lists"),
        ("I: downloading packages", "downloading the base system"),
        ("I: extracting archives", "unpacking the base system"),
        ("I: installing essential packages", "setting up the base system"),
        ("I: installing remaining packages", "installing packages"),
        ("I: running --customize-hook", "installing TypeScript"),
        ("I: creating tarball", "storing the image"),
    ];
    if let Some((_, name)) = PHASES.iter().find(|(start, _)| line.starts_with(start)) {
        progress.phase(name);
    } else if let Some(count) = newly_installed(line) {
        // Each is downloaded, unpacked and set up.
        progress.total(count * 3, Unit::Steps);
    } else if ["Get:", "Unpacking ", "Setting up "].iter().any(|start| line.starts_with(start)) {
        progress.advance(1);
        progress.detail(line);
    }
}

/// From apt's `0 upgraded, 412 newly installed, 0 to remove and 0 not upgraded.`
fn newly_installed(line: &str) -> Option<u64> {
    line.split_once(" upgraded, ")?.1.split_once(" newly installed")?.0.parse().ok()
}

fn setup_error(why: String) -> ImageError {
    ImageError::Setup { why }
}

fn with_source(error: &ImageError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_is_readable_and_part_of_its_digest() {
        let mut options = SetupOptions::default();
        assert!(packages(&options).contains(&"python3-pip") && !packages(&options).iter().any(|p| p.contains('#')));
        let before = recipe_digest(&options);
        options.packages.push("jq".into());
        assert!(recipe_digest(&options) != before && packages(&options).ends_with(&["jq"]));
        assert_eq!(config(before).unwrap().user.as_deref(), Some("daytona"));
        assert!(check_options(&SetupOptions::default()).is_ok());
    }

    #[test]
    fn options_cannot_smuggle_arguments() {
        for bad in ["--hook=x", "a b", "", "x;y", "$(id)", "a\nb"] {
            let options = SetupOptions { packages: vec![bad.into()], ..SetupOptions::default() };
            assert!(check_options(&options).unwrap_err().to_string().contains(&format!("{bad:?}")));
        }
    }

    #[test]
    fn a_failed_build_names_its_reason_and_leaves_no_image() {
        let dir = std::env::temp_dir().join(format!("infield-setup-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        // Nothing listens on the discard port.
        let options = SetupOptions {
            mirror: "http://127.0.0.1:9/debian".into(),
            security_mirror: None,
            ..SetupOptions::default()
        };
        let error = build_base_image(&store, &options, &Silent).unwrap_err().to_string();
        let images = store.list().unwrap();
        let left = std::fs::read_dir(dir.join("tmp")).unwrap().count();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(error.contains(BASE_REFERENCE), "{error}");
        assert!(images.is_empty() && left == 0, "{images:?}, {left} left");
    }

    #[test]
    fn counts_come_from_apt() {
        assert_eq!(newly_installed("0 upgraded, 412 newly installed, 0 to remove and 0 not upgraded."), Some(412));
        assert_eq!(newly_installed("Setting up perl"), None);
    }
}
