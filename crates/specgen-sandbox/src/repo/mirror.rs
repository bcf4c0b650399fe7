//! A repository on this machine, carried into a sandbox that cannot reach this machine, and its commits carried back.
//!
//! A bare repository inside the sandbox, made of uploaded files, plays the origin: cloning from it and pushing to it need
//! neither a network nor a git program in the image. The local branch is brought up to date by fast-forward only.
//!
//! What comes back was written inside a sandbox and is hostile: only object files with well-formed names are taken, into
//! a repository made here, and git checks every object before the local repository sees one.

use super::git::{branch_tip, git, git_with, holds, is_object_name};
use crate::errors::{Failure, LOCAL_GIT};
use bytes::Bytes;
use infield_client::{
    Toolbox,
    toolbox::{Content, UploadFile},
};
use std::path::{Path, PathBuf};

/// Folder in the sandbox user's home that holds origins.
const ORIGINS: &str = ".infield/origin";
/// File in an origin: the packs that came from here and need not be carried back.
const SENT_PACKS: &str = "sent-packs";

pub struct Mirror<'a> {
    toolbox: &'a Toolbox,
    folder: &'a Path,
    /// The bare repository in the sandbox.
    origin: String,
    /// Where fetched commits are kept in the local repository, whatever happens to the branch.
    keep: String,
}

/// What became of the local branch.
pub enum Brought {
    Nothing,
    Moved { folder: String, to: String },
}

/// A scratch folder that goes away with its value.
struct Scratch(PathBuf);

/// Puts one branch of a local repository into a new origin in the sandbox; answers its address there.
pub async fn seed(toolbox: &Toolbox, folder: &Path, branch: &str, home: &str) -> Result<String, Failure> {
    let Some(tip) = branch_tip(folder, branch).await? else {
        return Err(Failure::detailed(LOCAL_GIT, format!("{} has no branch {branch}", folder.display())));
    };
    let origin = origin_path(home, folder);
    let scratch = Scratch::new()?;
    let packs = pack(folder, &scratch.0, &format!("{tip}\n")).await?;
    let mut files = vec![
        text(format!("{origin}/HEAD"), format!("ref: refs/heads/{branch}\n")),
        text(format!("{origin}/config"), "[core]\n\trepositoryformatversion = 0\n\tbare = true\n".into()),
        text(format!("{origin}/{SENT_PACKS}"), format!("{}\n", packs.join("\n"))),
    ];
    files.extend(pack_uploads(&origin, &scratch.0, &packs));
    // The branch last: it must not name objects that are not there yet.
    files.push(text(format!("{origin}/refs/heads/{branch}"), format!("{tip}\n")));
    toolbox.upload(files).await?;
    Ok(format!("file://{origin}"))
}

impl<'a> Mirror<'a> {
    pub async fn open(toolbox: &'a Toolbox, folder: &'a Path, sandbox: &str) -> Result<Self, Failure> {
        let inside = git(folder, &["rev-parse", "--git-dir"]).await;
        inside.map_err(|failure| {
            failure.next("sync on the machine, and with the folder, that the sandbox was spun from")
        })?;
        let origin = origin_path(&toolbox.home_dir().await?, folder);
        Ok(Self { toolbox, folder, origin, keep: format!("refs/infield/{sandbox}") })
    }

    /// Makes the origin know the local branch's commits, so that a push there is judged as if it happened here.
    pub async fn refresh(&self, branch: &str) -> Result<(), Failure> {
        let Some(here) = branch_tip(self.folder, branch).await? else { return Ok(()) };
        let there = self.read_ref(branch).await?;
        if there.as_deref() == Some(here.as_str()) {
            return Ok(());
        }
        if let Some(there) = &there {
            // An earlier sync may have pushed and then failed to come home.
            if !self.has(there).await? {
                self.fetch(branch, there).await?;
            }
            if holds(self.folder, &["merge-base", "--is-ancestor", &here, there]).await? {
                return Ok(());
            }
        }
        let known = there.map(|there| format!("^{there}\n")).unwrap_or_default();
        self.send(branch, &here, &known).await
    }

    /// Fetches the pushed branch and fast-forwards the local one. The inner error is a branch that went another way.
    pub async fn bring_home(&self, branch: &str) -> Result<Result<Brought, String>, Failure> {
        let Some(there) = self.read_ref(branch).await? else {
            return Err(Failure::detailed(
                LOCAL_GIT,
                format!("the sandbox's origin has no branch {branch} after the push"),
            ));
        };
        if !self.has(&there).await? {
            self.fetch(branch, &there).await?;
        }
        let kept = format!("{}/{branch}", self.keep);
        git(self.folder, &["update-ref", &kept, &there]).await?;
        let moved = || Brought::Moved { folder: self.folder.display().to_string(), to: there.clone() };
        let Some(here) = branch_tip(self.folder, branch).await? else {
            git(self.folder, &["update-ref", &format!("refs/heads/{branch}"), &there, ""]).await?;
            return Ok(Ok(moved()));
        };
        if here == there {
            return Ok(Ok(Brought::Nothing));
        }
        if !holds(self.folder, &["merge-base", "--is-ancestor", &here, &there]).await? {
            return Ok(Err(format!(
                "{branch} in {} went another way; the sandbox's is at {kept}",
                self.folder.display()
            )));
        }
        self.fast_forward(branch, &here, &there).await.map_err(|failure| {
            failure.next(format!("commit or stash the changes there, then: git merge --ff-only {kept}"))
        })?;
        Ok(Ok(moved()))
    }

    async fn fast_forward(&self, branch: &str, here: &str, there: &str) -> Result<(), Failure> {
        let name = format!("refs/heads/{branch}");
        let worktrees = git(self.folder, &["worktree", "list", "--porcelain"]).await?;
        match checked_out(&worktrees, &name) {
            // With files on disk: git refuses by itself when local changes are in the way.
            Some(tree) => git(Path::new(&tree), &["merge", "--ff-only", "--quiet", there]).await,
            None => git(self.folder, &["update-ref", &name, there, here]).await,
        }
        .map(drop)
    }

    /// The commit a branch has in the sandbox's origin.
    async fn read_ref(&self, branch: &str) -> Result<Option<String>, Failure> {
        let mut content = Vec::new();
        let path = format!("{}/refs/heads/{branch}", self.origin);
        match self.toolbox.download(&path, &mut content).await {
            Ok(_) => {}
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        let name = String::from_utf8_lossy(&content).trim().to_owned();
        if is_object_name(&name) {
            return Ok(Some(name));
        }
        Err(Failure::detailed(LOCAL_GIT, format!("{path} in the sandbox does not hold a commit")))
    }

    async fn has(&self, commit: &str) -> Result<bool, Failure> {
        holds(self.folder, &["cat-file", "-e", &format!("{commit}^{{commit}}")]).await
    }

    async fn send(&self, branch: &str, here: &str, known: &str) -> Result<(), Failure> {
        let scratch = Scratch::new()?;
        let packs = pack(self.folder, &scratch.0, &format!("{here}\n{known}")).await?;
        let mut sent = self.sent_packs().await?;
        sent.extend(packs.iter().cloned());
        let mut files = pack_uploads(&self.origin, &scratch.0, &packs);
        files.push(text(format!("{}/{SENT_PACKS}", self.origin), format!("{}\n", sent.join("\n"))));
        files.push(text(format!("{}/refs/heads/{branch}", self.origin), format!("{here}\n")));
        Ok(self.toolbox.upload(files).await?)
    }

    async fn sent_packs(&self) -> Result<Vec<String>, Failure> {
        let mut content = Vec::new();
        match self.toolbox.download(&format!("{}/{SENT_PACKS}", self.origin), &mut content).await {
            Ok(_) => Ok(String::from_utf8_lossy(&content).lines().map(str::to_owned).collect()),
            Err(e) if e.is_not_found() => Ok(Vec::new()),
            Err(e) => Err(e.into()),
        }
    }

    /// Copies the origin's new objects into a scratch repository and fetches the branch from there.
    async fn fetch(&self, branch: &str, commit: &str) -> Result<(), Failure> {
        let scratch = Scratch::new()?;
        let bare = scratch.0.join("origin.git");
        git(&scratch.0, &["init", "--quiet", "--bare", "origin.git"]).await?;
        let common = git(self.folder, &["rev-parse", "--path-format=absolute", "--git-common-dir"]).await?;
        write(&bare.join("objects/info/alternates"), format!("{common}/objects\n").as_bytes())?;
        self.collect_packs(&bare, &scratch.0).await?;
        self.collect_loose(&bare).await?;
        git(&bare, &["update-ref", &format!("refs/heads/{branch}"), commit]).await?;
        let spec = format!("+refs/heads/{branch}:{}/{branch}", self.keep);
        let from = bare.display().to_string();
        let args =
            ["-c", "fetch.fsckObjects=true", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", &from, &spec];
        git(self.folder, &args).await.map(drop)
    }

    async fn collect_packs(&self, bare: &Path, scratch: &Path) -> Result<(), Failure> {
        let sent = self.sent_packs().await?;
        let folder = format!("{}/objects/pack", self.origin);
        for file in self.list(&folder).await? {
            let Some(name) = file.strip_suffix(".pack").filter(|name| is_pack_name(name)) else { continue };
            if sent.iter().any(|known| known == name) {
                continue;
            }
            let local = scratch.join(&file);
            self.download(&format!("{folder}/{file}"), &local).await?;
            // The index is made anew here; only the pack's own bytes are taken.
            let local = local.display().to_string();
            git(bare, &["index-pack", "--strict", "-o", &format!("objects/pack/{name}.idx"), &local]).await?;
            rename(Path::new(&local), &bare.join(format!("objects/pack/{file}")))?;
        }
        Ok(())
    }

    async fn collect_loose(&self, bare: &Path) -> Result<(), Failure> {
        let folder = format!("{}/objects", self.origin);
        for prefix in self.list(&folder).await?.into_iter().filter(|name| name.len() == 2) {
            for rest in self.list(&format!("{folder}/{prefix}")).await? {
                if !is_object_name(&format!("{prefix}{rest}")) {
                    continue;
                }
                let local = bare.join("objects").join(&prefix).join(&rest);
                self.download(&format!("{folder}/{prefix}/{rest}"), &local).await?;
            }
        }
        Ok(())
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, Failure> {
        match self.toolbox.list_files(folder).await {
            Ok(files) => Ok(files.into_iter().map(|file| file.name).collect()),
            Err(e) if e.is_not_found() => Ok(Vec::new()),
            Err(e) => Err(e.into()),
        }
    }

    async fn download(&self, from: &str, to: &Path) -> Result<(), Failure> {
        let failed = |e: std::io::Error| Failure::detailed(LOCAL_GIT, format!("cannot write {}: {e}", to.display()));
        if let Some(folder) = to.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(failed)?;
        }
        let mut file = tokio::fs::File::create(to).await.map_err(failed)?;
        self.toolbox.download(from, &mut file).await?;
        Ok(())
    }
}

/// Packs what the revisions reach; answers the packs' names without suffix.
async fn pack(folder: &Path, into: &Path, revisions: &str) -> Result<Vec<String>, Failure> {
    let base = into.join("pack").display().to_string();
    let hashes = git_with(folder, &["pack-objects", "--revs", "--quiet", &base], Some(revisions.as_bytes())).await?;
    Ok(hashes.lines().map(|hash| format!("pack-{hash}")).collect())
}

fn pack_uploads(origin: &str, scratch: &Path, packs: &[String]) -> Vec<UploadFile> {
    let files = packs.iter().flat_map(|name| [format!("{name}.pack"), format!("{name}.idx")]);
    let upload = |file: String| UploadFile {
        path: format!("{origin}/objects/pack/{file}"),
        content: Content::File(scratch.join(file)),
    };
    files.map(upload).collect()
}

fn text(path: String, content: String) -> UploadFile {
    UploadFile { path, content: Content::Bytes(Bytes::from(content)) }
}

fn origin_path(home: &str, folder: &Path) -> String {
    format!("{home}/{ORIGINS}/{}.git", super::Repo::Local(folder.to_owned()).name())
}

/// The folder of the work tree that has a branch checked out.
fn checked_out(worktrees: &str, branch: &str) -> Option<String> {
    let mut tree = None;
    for line in worktrees.lines() {
        if let Some(path) = line.strip_prefix("worktree ") {
            tree = Some(path.to_owned());
        }
        if line.strip_prefix("branch ") == Some(branch) {
            return tree;
        }
        if line == "bare" {
            tree = None;
        }
    }
    None
}

fn is_pack_name(name: &str) -> bool {
    name.strip_prefix("pack-").is_some_and(is_object_name)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes)
        .map_err(|e| Failure::detailed(LOCAL_GIT, format!("cannot write {}: {e}", path.display())))
}

fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::rename(from, to).map_err(|e| Failure::detailed(LOCAL_GIT, format!("cannot move {}: {e}", from.display())))
}

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("specgen-sandbox-{}", uuid::Uuid::new_v4()));
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(e) => Err(Failure::detailed(LOCAL_GIT, format!("cannot make {}: {e}", path.display()))),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_tree_of_a_branch() {
        let list = "worktree /a\nHEAD 1\nbranch refs/heads/main\n\nworktree /b\nHEAD 2\nbranch refs/heads/x\n";
        assert_eq!(checked_out(list, "refs/heads/x").as_deref(), Some("/b"));
        assert_eq!(checked_out(list, "refs/heads/y"), None);
        assert_eq!(checked_out("worktree /a\nbare\n", "refs/heads/main"), None);
    }

    #[test]
    fn hostile_names_are_not_taken() {
        assert!(is_pack_name(&format!("pack-{}", "a".repeat(40))));
        for name in ["pack-../../x", "pack-", "tmp_pack_x"] {
            assert!(!is_pack_name(name), "{name}");
        }
    }
}
