//! Fetches an image from a registry: chooses the platform, downloads what is missing a few layers at a time, checks both
//! digests of each and hands the files to the store. A download that breaks goes on where it broke.

use super::{
    config::{DOCUMENT_BYTES_MAX, Document},
    error::{ImageError, Result},
    layer::{LAYER_STORED_BYTES_MAX, ROOM_CHECK_BYTES},
    manifest::{Descriptor, INDEX_DEPTH_MAX, ImageManifest, Manifest, Platform},
    progress::{Progress, Silent, Unit},
    reach::Reach,
    reference::{Reference, sha256_of},
    registries::{Credentials, RegistriesConfig},
    registry::Registry,
    staging::{self, Staged, Staging},
    store::{Giver, Image, Store},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{StatusCode, header::CONTENT_RANGE};
use sha2::{Digest, Sha256};
use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};
use tokio::{fs::File, io::AsyncWriteExt};

/// Layers on their way at the same time.
const DOWNLOADS_MAX: usize = 4;
/// Tries for one layer, each going on where the last one broke.
const TRIES_MAX: u32 = 5;
const RETRY_DELAY: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// For the reference's own registry; wins over what `registries` says.
    pub auth: Option<Credentials>,
    pub registries: RegistriesConfig,
    /// `None` = this host's.
    pub platform: Option<Platform>,
    /// `None` for root, who may pull from everywhere. Else registries that `registries` does not name must be within, and
    /// errors tell less.
    pub reach: Option<Arc<Reach>>,
}

impl Store {
    /// Makes the image present under this reference, fetching only layers that are not here. Mirrors are tried first.
    pub async fn pull(
        self: &Arc<Self>,
        reference: &str,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Arc<Image>> {
        let reference = Reference::parse(reference)?;
        let endpoints = options.registries.endpoints(&reference, options.auth.as_ref());
        let mut errors = Vec::new();
        for endpoint in endpoints {
            let host = endpoint.host.clone();
            let pulled = match Registry::open(endpoint, &reference, options.reach.as_ref()).await {
                Ok(registry) => Pull { store: self, registry, reference: &reference, options, progress }.run().await,
                Err(error) => Err(error),
            };
            match pulled {
                Ok(image) => return Ok(image),
                Err(error) => {
                    tracing::warn!(%reference, host, %error, "a registry could not serve an image");
                    errors.push(if options.reach.is_some() { error.vague() } else { error });
                }
            }
        }
        Err(telling(errors).unwrap_or_else(|| ImageError::Missing { reference: reference.to_string() }))
    }
}

/// The error worth showing: behind a mirror the registry itself is often out of reach, which explains nothing.
fn telling(mut errors: Vec<ImageError>) -> Option<ImageError> {
    let found = errors.iter().rposition(|error| !matches!(error, ImageError::Unreachable { .. }));
    let last = errors.len().checked_sub(1)?;
    Some(errors.swap_remove(found.unwrap_or(last)))
}

struct Pull<'a> {
    store: &'a Arc<Store>,
    registry: Registry,
    reference: &'a Reference,
    options: &'a PullOptions,
    progress: &'a dyn Progress,
}

impl Pull<'_> {
    async fn run(&self) -> Result<Arc<Image>> {
        self.progress.phase("resolving");
        let platform = self.options.platform.clone().unwrap_or_else(Platform::host);
        let manifest = self.manifest(&platform).await?;
        let config = self.config(&manifest.config).await?;
        let document = self.document(&config, &manifest, &platform)?;
        let staging = self.blocking(Store::begin).await?;
        let staging = Arc::new(staging);
        let staged = self.layers(&staging, &manifest, &document).await?;
        let staging = Arc::into_inner(staging).ok_or_else(|| self.registry.nonsense("a download still runs".into()))?;
        let reference = self.reference.clone();
        let giver = if self.options.reach.is_some() { Giver::Caller } else { Giver::Operator };
        self.blocking(move |store| staging.commit(store, &config, staged, &reference, giver)).await
    }

    async fn manifest(&self, platform: &Platform) -> Result<ImageManifest> {
        let mut wanted = self.reference.tag_or_digest().to_string();
        for _ in 0..INDEX_DEPTH_MAX {
            let bytes = self.registry.manifest(&wanted, DOCUMENT_BYTES_MAX).await?;
            if wanted.starts_with("sha256:") {
                same(&format!("manifest of {}", self.reference), &wanted, sha256_of(&bytes))?;
            }
            match Manifest::parse(&bytes).map_err(|why| self.registry.nonsense(why))? {
                Manifest::Image(manifest) => return Ok(manifest),
                Manifest::Index(index) => {
                    let chosen = index.choose(platform).ok_or_else(|| ImageError::Platform {
                        reference: self.reference.to_string(),
                        platform: platform.to_string(),
                        offered: index.offered(),
                    })?;
                    wanted = chosen.digest.clone();
                    if super::reference::hex_of(&wanted).is_none() {
                        return Err(self.registry.nonsense(format!("{wanted:?} is no sha256 digest")));
                    }
                }
            }
        }
        Err(self.registry.nonsense(format!("its indexes are nested deeper than {INDEX_DEPTH_MAX}")))
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let answer = self.registry.usable(self.registry.blob(&descriptor.digest, 0).await?)?;
        let bytes = self.registry.whole(answer, DOCUMENT_BYTES_MAX).await?;
        same(&format!("configuration of {}", self.reference), &descriptor.digest, sha256_of(&bytes))?;
        Ok(bytes)
    }

    fn document(&self, config: &[u8], manifest: &ImageManifest, platform: &Platform) -> Result<Document> {
        let document = Document::parse(config)?;
        let (layers, ids) = (manifest.layers.len(), document.rootfs.diff_ids.len());
        if layers != ids {
            return Err(self.registry.nonsense(format!("{layers} layers for {ids} layer ids")));
        }
        let made_for = |found: &str, wanted: &str| found.is_empty() || found == wanted;
        if !made_for(&document.os, &platform.os) || !made_for(&document.architecture, &platform.architecture) {
            return Err(ImageError::Platform {
                reference: self.reference.to_string(),
                platform: platform.to_string(),
                offered: format!("{}/{}", document.os, document.architecture),
            });
        }
        if manifest
            .layers
            .iter()
            .try_fold(0u64, |sum, layer| sum.checked_add(layer.size))
            .is_none_or(|sum| sum > LAYER_STORED_BYTES_MAX)
        {
            let limit = format!("{} GiB", LAYER_STORED_BYTES_MAX >> 30);
            return Err(ImageError::TooLarge { what: self.reference.to_string(), limit });
        }
        Ok(document)
    }

    /// Layers that are not in the store, unpacked in the staging area.
    async fn layers(
        &self,
        staging: &Arc<Staging>,
        manifest: &ImageManifest,
        document: &Document,
    ) -> Result<Vec<Staged>> {
        let mut seen = HashSet::new();
        let pairs = manifest.layers.iter().zip(&document.rootfs.diff_ids);
        let missing: Vec<_> = pairs.filter(|(_, id)| !self.store.has_layer(id) && seen.insert(id.as_str())).collect();
        self.progress.phase("downloading");
        self.progress.total(missing.iter().map(|(layer, _)| layer.size).sum(), Unit::Bytes);
        let downloads = missing.into_iter().map(|(layer, diff_id)| self.layer(staging, layer, diff_id));
        stream::iter(downloads).buffer_unordered(DOWNLOADS_MAX).try_collect().await
    }

    async fn layer(&self, staging: &Arc<Staging>, layer: &Descriptor, diff_id: &str) -> Result<Staged> {
        let path = staging.path("blob");
        self.download(layer, &path).await?;
        self.progress.detail(&format!("unpacking {}", layer.digest));
        let area = staging.clone();
        let staged = self
            .blocking(move |_| {
                let blob =
                    std::fs::File::open(&path).map_err(ImageError::io(format!("cannot open {}", path.display())))?;
                let staged = area.unpack(blob, &Silent);
                // Room for the next one; what fails is swept.
                let _ = std::fs::remove_file(&path);
                staged
            })
            .await?;
        same(&format!("unpacked layer {}", layer.digest), diff_id, staged.layer.diff_id.clone())?;
        Ok(staged)
    }

    async fn download(&self, layer: &Descriptor, path: &Path) -> Result<()> {
        let io = || ImageError::io(format!("cannot write {}", path.display()));
        let mut download = Download { file: File::create(path).await.map_err(io())?, hash: Sha256::new(), got: 0 };
        let mut tries = 0;
        loop {
            tries += 1;
            match self.download_on(layer, &mut download).await {
                Ok(()) => break,
                Err(error @ ImageError::Unreachable { .. }) if tries < TRIES_MAX => {
                    tracing::debug!(layer = layer.digest, tries, %error, "a download broke");
                    tokio::time::sleep(RETRY_DELAY * 2u32.pow(tries - 1)).await;
                }
                Err(error) => return Err(error),
            }
        }
        download.file.flush().await.map_err(io())?;
        let found = format!("sha256:{}", hex::encode(download.hash.finalize()));
        same(&format!("layer of {} from {}", self.reference, self.registry.host()), &layer.digest, found)
    }

    /// Goes on where the file ends; from the start when the registry cannot.
    async fn download_on(&self, layer: &Descriptor, download: &mut Download) -> Result<()> {
        let mut answer = self.registry.usable(self.registry.blob(&layer.digest, download.got).await?)?;
        let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let resumed = answer.status() == StatusCode::PARTIAL_CONTENT
            && range.is_some_and(|range| range.starts_with(&format!("bytes {}-", download.got)));
        if download.got > 0 && !resumed {
            download.restart().await.map_err(ImageError::io("cannot start a download again"))?;
        }
        let mut unchecked = 0;
        while let Some(piece) = answer.chunk().await.map_err(|error| self.registry.unreachable(&error))? {
            download.got += piece.len() as u64;
            if download.got > layer.size {
                return Err(self.registry.nonsense(format!("layer {} is longer than announced", layer.digest)));
            }
            download.hash.update(&piece);
            download
                .file
                .write_all(&piece)
                .await
                .map_err(ImageError::io(format!("cannot store layer {}", layer.digest)))?;
            self.progress.advance(piece.len() as u64);
            unchecked += piece.len() as u64;
            if unchecked >= ROOM_CHECK_BYTES {
                staging::check_room(self.store.dir())?;
                unchecked = 0;
            }
        }
        match download.got == layer.size {
            true => Ok(()),
            false => Err(self.registry.nonsense(format!("layer {} is shorter than announced", layer.digest))),
        }
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Store) -> Result<T> + Send + 'static) -> Result<T> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|error| Err(self.registry.nonsense(format!("unpacking stopped: {error}"))))
    }
}

struct Download {
    file: File,
    hash: Sha256,
    got: u64,
}

impl Download {
    async fn restart(&mut self) -> std::io::Result<()> {
        use tokio::io::AsyncSeekExt;
        self.file.set_len(0).await?;
        self.file.rewind().await?;
        (self.hash, self.got) = (Sha256::new(), 0);
        Ok(())
    }
}

fn same(what: &str, expected: &str, found: String) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(ImageError::Digest { what: what.into(), expected: expected.into(), found }),
    }
}
