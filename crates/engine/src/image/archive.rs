//! Finds an image inside an unpacked archive: `docker save` (manifest.json) and OCI layouts (index.json). What lies there
//! is hostile, links included, so every file is opened below the unpacked root.

use super::{
    config::{DOCUMENT_BYTES_MAX, Document, ImageConfig, LAYERS_MAX},
    error::{ImageError, Result},
    manifest::{Descriptor, INDEX_DEPTH_MAX, ImageManifest, Manifest, Platform},
    progress::Progress,
    reference::{Reference, hex_of},
    staging::Staging,
    store::{Giver, Image, Store},
    unpack,
};
use rustix::fs::{self, FileType, OFlags};
use serde::Deserialize;
use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    layers: Vec<String>,
}

/// An image in an unpacked archive: paths of its parts below `root`, layers bottom first.
pub struct Found {
    root: OwnedFd,
    config: String,
    layers: Vec<String>,
}

/// `None` when the archive is something else: then it is a root file system.
pub fn find(root: &Path) -> Result<Option<Found>> {
    let root = unpack::open_dir(root)?;
    let is_there = |name: &str| fs::statat(&root, name, fs::AtFlags::SYMLINK_NOFOLLOW).is_ok();
    if ["usr", "bin", "etc"].into_iter().any(is_there) {
        return Ok(None);
    }
    if is_there("manifest.json") {
        let found = serde_json::from_slice::<Vec<DockerManifest>>(&bytes(&root, "manifest.json")?);
        let Ok(found) = found else { return Ok(None) };
        let [one] = <[DockerManifest; 1]>::try_from(found).map_err(|all| ImageError::Archive {
            why: format!("it holds {} images; save one image per archive", all.len()),
        })?;
        return Ok(Some(Found { root, config: one.config, layers: one.layers }));
    }
    if is_there("oci-layout") && is_there("index.json") {
        let manifest = pick(&root)?;
        let layers = manifest.layers.iter().map(blob).collect::<Result<_>>()?;
        return Ok(Some(Found { root, config: blob(&manifest.config)?, layers }));
    }
    Ok(None)
}

impl Found {
    pub fn import(
        self,
        store: &Store,
        staging: Staging,
        reference: &Reference,
        over: &ImageConfig,
        progress: &dyn Progress,
    ) -> Result<Arc<Image>> {
        let mut config = bytes(&self.root, &self.config)?;
        let document = Document::parse(&config)?;
        let diff_ids = &document.rootfs.diff_ids;
        if diff_ids.len() != self.layers.len() || diff_ids.len() > LAYERS_MAX {
            let why = format!("{} layers for {} layer ids", self.layers.len(), diff_ids.len());
            return Err(ImageError::Config { why });
        }
        progress.phase("unpacking layers");
        let mut staged = Vec::new();
        for (path, diff_id) in self.layers.iter().zip(diff_ids) {
            if store.has_layer(diff_id) {
                continue;
            }
            let layer = staging.unpack(open(&self.root, path)?, progress)?;
            if layer.layer.diff_id != *diff_id {
                let (expected, found) = (diff_id.clone(), layer.layer.diff_id.clone());
                return Err(ImageError::Digest { what: format!("layer {path}"), expected, found });
            }
            staged.push(layer);
        }
        if *over != ImageConfig::default() {
            config = document.overridden(over)?;
        }
        staging.commit(store, &config, staged, reference, Giver::Operator)
    }
}

fn pick(root: &OwnedFd) -> Result<ImageManifest> {
    let mut path = "index.json".to_string();
    for _ in 0..INDEX_DEPTH_MAX {
        match Manifest::parse(&bytes(root, &path)?)
            .map_err(|why| ImageError::Archive { why: format!("{path}: {why}") })?
        {
            Manifest::Image(manifest) => return Ok(manifest),
            Manifest::Index(index) => {
                let wanted = Platform::host();
                let offered = index.offered();
                let chosen = index.choose(&wanted).ok_or_else(|| ImageError::Archive {
                    why: format!("it holds no image for {wanted}, only for {offered}"),
                })?;
                path = blob(chosen)?;
            }
        }
    }
    Err(ImageError::Archive { why: format!("its indexes are nested deeper than {INDEX_DEPTH_MAX}") })
}

fn blob(descriptor: &Descriptor) -> Result<String> {
    let hex = hex_of(&descriptor.digest)
        .ok_or_else(|| ImageError::Archive { why: format!("{:?} is no sha256 digest", descriptor.digest) })?;
    Ok(format!("blobs/sha256/{hex}"))
}

fn bytes(root: &OwnedFd, path: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open(root, path)?.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(ImageError::io(format!("cannot read {path} in the archive")))?;
    Ok(bytes)
}

/// Only regular files: opening a fifo from an archive would wait for ever.
fn open(root: &OwnedFd, path: &str) -> Result<File> {
    let unusable = |why: String| ImageError::Archive { why: format!("{path}: {why}") };
    let file = unpack::open_below(root.as_fd(), Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK)
        .map_err(|errno| unusable(errno.to_string()))?;
    let stat = fs::fstat(&file).map_err(|errno| unusable(errno.to_string()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(unusable("not a regular file".into())),
    }
}
