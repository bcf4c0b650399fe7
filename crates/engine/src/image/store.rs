//! The image store of one host, a directory that several processes share:
//! `layers/<diff id>/{fs,meta.json}`, `configs/<id>.json`, `refs/<hash of name>.json`, `claims/<user>/<id>`, `tmp/`, `lock`.
//! Everything appears by rename; what a crash leaves lies in `tmp/` and is swept when nobody holds the lock.

use super::{
    config::{Document, ImageConfig},
    error::{ImageError, Result},
    reference::{Reference, hex_of, sha256_of},
    staging::{self, Staging},
};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Answers kept ready; beyond this the cache starts again.
const CACHED_IMAGES_MAX: usize = 1_024;
/// A resolved image stays claimed this long even when its sandbox is not recorded yet.
const CLAIM_GRACE: Duration = Duration::from_secs(600);

/// An image, ready to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `sha256:` of the configuration document.
    pub id: String,
    /// Every name the host's operator gave it.
    pub references: Vec<String>,
    /// Names it only has because a caller of this server's API had it pulled.
    pub pulled: Vec<String>,
    /// Directories for overlayfs's `lowerdir`, TOP FIRST.
    pub layers: Vec<PathBuf>,
    pub config: ImageConfig,
    /// Of all files, unpacked.
    pub size_bytes: u64,
    pub created_at_ms: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    pub images_removed: u64,
    pub layers_removed: u64,
    pub bytes_freed: u64,
    /// Nothing was collected because an image is being made right now; try later.
    pub busy: bool,
}

#[derive(Serialize, Deserialize)]
pub struct LayerMeta {
    pub size_bytes: u64,
    pub entries: u64,
}

#[derive(Serialize, Deserialize)]
struct Named {
    reference: String,
    id: String,
    /// The folder of claims of the server that pulled it for a caller; none for the operator's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pulled_by: Option<String>,
}

pub struct Store {
    dir: PathBuf,
    /// Claims of this process's data directory.
    claims: Option<PathBuf>,
    cache: Mutex<HashMap<String, Cached>>,
}

/// Who gives an image a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Giver {
    Operator,
    /// Somebody with an API key: the image is theirs alone.
    Caller,
}

struct Cached {
    image: Arc<Image>,
    /// The file that makes the answer true.
    file: PathBuf,
    stamps: [Stamp; 2],
    claimed: SystemTime,
}

/// Changes whenever the file is replaced or the directory gains or loses an entry.
type Stamp = (u64, i64, i64);

impl Store {
    /// Opens or makes the store. Sweeps what a crash left when no other process works in it.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        // Set-user-id programs of images must not be reachable for the host's users.
        staging::make_dir(dir, 0o700)?;
        for part in ["layers", "configs", "refs", "claims", "tmp"] {
            staging::make_dir(&dir.join(part), 0o700)?;
        }
        let dir = dir.canonicalize().map_err(ImageError::io(format!("cannot open {}", dir.display())))?;
        let store = Self { dir, claims: None, cache: Mutex::default() };
        if let Some(_alone) = staging::try_lock(&store.dir, FlockOperation::NonBlockingLockExclusive)? {
            store.sweep()?;
        }
        Ok(store)
    }

    /// Same, for a data directory whose sandboxes use the images: what it resolves is safe from other users' `gc`.
    pub fn open_for(dir: impl AsRef<Path>, data_dir: &Path) -> Result<Self> {
        let mut store = Self::open(dir)?;
        let owner = data_dir.canonicalize().map_err(ImageError::io(format!("cannot open {}", data_dir.display())))?;
        let owner = owner.as_os_str().as_encoded_bytes();
        let claims = store.dir.join("claims").join(&sha256_of(owner)[7..23]);
        staging::make_dir(&claims, 0o700)?;
        fs::write(claims.join("owner"), owner)
            .map_err(ImageError::io(format!("cannot write in {}", claims.display())))?;
        store.claims = Some(claims);
        Ok(store)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Finds an image by reference or `sha256:…` id. Two `stat` calls when it was resolved before.
    pub fn resolve(&self, reference_or_id: &str) -> Result<Arc<Image>> {
        let now = SystemTime::now();
        if let Some(cached) = self.cache().get(reference_or_id)
            && now.duration_since(cached.claimed).is_ok_and(|age| age < CLAIM_GRACE / 2)
            && self.stamps(&cached.file).as_ref() == Some(&cached.stamps)
        {
            return Ok(cached.image.clone());
        }
        let missing = || ImageError::Missing { reference: reference_or_id.into() };
        // Not while a collector runs: it may have read the claims already.
        let _lock = staging::lock(&self.dir, FlockOperation::LockShared)?;
        let file = match hex_of(reference_or_id) {
            Some(hex) => self.dir.join("configs").join(format!("{hex}.json")),
            None => self.ref_path(&Reference::parse(reference_or_id)?),
        };
        // Stamped before it is read: a change in between makes the stamps differ.
        let stamps = self.stamps(&file).ok_or_else(missing)?;
        let id = match hex_of(reference_or_id) {
            Some(_) => reference_or_id.to_string(),
            None => self.named(&file)?.ok_or_else(missing)?.id,
        };
        self.claim(&id)?;
        let image = Arc::new(self.load(&id, self.names_of(&id)?)?.ok_or_else(missing)?);
        let mut cache = self.cache();
        if cache.len() >= CACHED_IMAGES_MAX {
            cache.clear();
        }
        cache.insert(reference_or_id.into(), Cached { image: image.clone(), file, stamps, claimed: now });
        Ok(image)
    }

    /// Every image that has a name, ordered by it.
    pub fn list(&self) -> Result<Vec<Image>> {
        let mut by_id: BTreeMap<String, Vec<Named>> = BTreeMap::new();
        for named in self.names()? {
            by_id.entry(named.id.clone()).or_default().push(named);
        }
        let mut images = Vec::new();
        for (id, names) in by_id {
            images.extend(self.load(&id, names)?);
        }
        images.sort_by(|a, b| (&a.references, &a.pulled).cmp(&(&b.references, &b.pulled)));
        Ok(images)
    }

    /// Forgets a name. Its layers stay until `gc`. `Missing` when there is no such name.
    pub fn remove(&self, reference: &str) -> Result<()> {
        let parsed = Reference::parse(reference)?;
        let path = self.ref_path(&parsed);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(ImageError::Missing { reference: reference.into() })
            }
            other => other.map_err(ImageError::io(format!("cannot remove {}", path.display()))),
        }
    }

    /// Forgets a name that was pulled for a caller of this server, and leaves every other alone.
    pub fn release(&self, reference: &str) -> Result<()> {
        let named = self.named(&self.ref_path(&Reference::parse(reference)?))?;
        match named {
            Some(named) if named.pulled_by.is_some() && named.pulled_by == self.owner() => self.remove(reference),
            _ => Ok(()),
        }
    }

    /// Deletes every configuration and layer that no name, no claim of another user and no id in `in_use` needs.
    pub fn gc(&self, in_use: &HashSet<String>) -> Result<GcReport> {
        let Some(_alone) = staging::try_lock(&self.dir, FlockOperation::NonBlockingLockExclusive)? else {
            return Ok(GcReport { busy: true, ..GcReport::default() });
        };
        self.sweep()?;
        let mut ids: HashSet<String> = self.names()?.into_iter().map(|named| named.id).collect();
        ids.extend(in_use.iter().cloned());
        ids.extend(self.live_claims(in_use)?);
        let mut report = GcReport::default();
        let mut diff_ids = HashSet::new();
        for name in entries(&self.dir.join("configs"))? {
            let id = format!("sha256:{}", name.trim_end_matches(".json"));
            let path = self.dir.join("configs").join(&name);
            if ids.contains(&id) {
                diff_ids.extend(Document::parse(&read(&path)?)?.rootfs.diff_ids);
            } else {
                fs::remove_file(&path).map_err(ImageError::io(format!("cannot remove {}", path.display())))?;
                report.images_removed += 1;
            }
        }
        for name in entries(&self.dir.join("layers"))? {
            if !diff_ids.contains(&format!("sha256:{name}")) {
                report.bytes_freed += self.remove_layer(&name)?;
                report.layers_removed += 1;
            }
        }
        Ok(report)
    }

    /// A directory that vanishes with the returned value, or is swept after a crash.
    pub fn scratch(&self) -> Result<Staging> {
        Staging::begin(self)
    }

    pub(super) fn begin(&self) -> Result<Staging> {
        Staging::begin(self)
    }

    /// True when the layer's files are already here, so that it need not be fetched again.
    pub(super) fn has_layer(&self, diff_id: &str) -> bool {
        hex_of(diff_id).is_some_and(|hex| self.layer_dir(hex).is_dir())
    }

    /// Gives an image of the store a name; an older image of that name loses it.
    pub(super) fn name(&self, reference: &Reference, id: &str, giver: Giver) -> Result<Arc<Image>> {
        let pulled_by = match giver {
            Giver::Operator => None,
            Giver::Caller => self.owner(),
        };
        let named = Named { reference: reference.to_string(), id: id.into(), pulled_by };
        let bytes = serde_json::to_vec(&named).map_err(|error| ImageError::Config { why: error.to_string() })?;
        let path = self.ref_path(reference);
        let name = path.strip_prefix(&self.dir).unwrap_or(&path).display().to_string();
        staging::write_atomic(&self.dir, &name, &bytes)?;
        self.resolve(&reference.to_string())
    }

    fn load(&self, id: &str, names: Vec<Named>) -> Result<Option<Image>> {
        let hex = hex_of(id).unwrap_or_default();
        let path = self.dir.join("configs").join(format!("{hex}.json"));
        let document = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => Document::parse(&other.map_err(ImageError::io(format!("cannot read {}", path.display())))?)?,
        };
        let (mut references, mut pulled) = (Vec::new(), Vec::new());
        for named in names {
            match named.pulled_by {
                None => references.push(named.reference),
                Some(by) if self.owner().is_none_or(|owner| owner == by) => pulled.push(named.reference),
                // Another server's callers had it pulled: not this one's to tell.
                Some(_) => {}
            }
        }
        references.sort();
        pulled.sort();
        let mut image = Image {
            id: id.into(),
            references,
            pulled,
            layers: Vec::new(),
            config: document.config(),
            size_bytes: 0,
            created_at_ms: document.created_at_ms().unwrap_or_else(|| modified_ms(&path)),
        };
        for diff_id in document.rootfs.diff_ids.iter().rev() {
            let layer = self.layer_dir(hex_of(diff_id).unwrap_or_default());
            let meta: LayerMeta = serde_json::from_slice(&read(&layer.join("meta.json"))?)
                .map_err(|error| ImageError::Config { why: format!("{}: {error}", layer.display()) })?;
            image.size_bytes += meta.size_bytes;
            image.layers.push(layer.join("fs"));
        }
        // Overlayfs refuses the same directory twice, and the upper of two equal layers already says everything.
        let mut seen = HashSet::new();
        image.layers.retain(|layer| seen.insert(layer.clone()));
        Ok(Some(image))
    }

    fn names(&self) -> Result<Vec<Named>> {
        let dir = self.dir.join("refs");
        // `None`: removed since the directory was read.
        entries(&dir)?.iter().filter_map(|name| self.named(&dir.join(name)).transpose()).collect()
    }

    fn named(&self, path: &Path) -> Result<Option<Named>> {
        match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::io(format!("cannot read {}", path.display()))(error)),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| ImageError::Config { why: format!("{}: {error}", path.display()) }),
        }
    }

    fn names_of(&self, id: &str) -> Result<Vec<Named>> {
        Ok(self.names()?.into_iter().filter(|named| named.id == id).collect())
    }

    /// Whose pulls these are: the name of the folder of this data directory's claims.
    fn owner(&self) -> Option<String> {
        Some(self.claims.as_ref()?.file_name()?.to_string_lossy().into_owned())
    }

    fn ref_path(&self, reference: &Reference) -> PathBuf {
        let hash = sha256_of(reference.to_string().as_bytes());
        self.dir.join("refs").join(format!("{}.json", hex_of(&hash).unwrap_or_default()))
    }

    fn layer_dir(&self, hex: &str) -> PathBuf {
        self.dir.join("layers").join(hex)
    }

    fn stamps(&self, file: &Path) -> Option<[Stamp; 2]> {
        Some([stamp(file)?, stamp(&self.dir.join("refs"))?])
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<String, Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self, id: &str) -> Result<()> {
        let (Some(claims), Some(hex)) = (&self.claims, hex_of(id)) else { return Ok(()) };
        fs::write(claims.join(hex), []).map_err(ImageError::io(format!("cannot claim image {id}")))
    }

    /// Claims of every user of the store. Own claims that are neither in use nor fresh end here, as do those of data
    /// directories that are gone.
    fn live_claims(&self, in_use: &HashSet<String>) -> Result<HashSet<String>> {
        let mut live = HashSet::new();
        for user in entries(&self.dir.join("claims"))? {
            let dir = self.dir.join("claims").join(user);
            let owner = fs::read(dir.join("owner")).unwrap_or_default();
            let is_gone = !Path::new(String::from_utf8_lossy(&owner).as_ref()).is_dir();
            let is_own = self.claims.as_ref() == Some(&dir);
            for hex in entries(&dir)?.into_iter().filter(|name| name != "owner") {
                let id = format!("sha256:{hex}");
                let fresh = fs::metadata(dir.join(&hex)).and_then(|meta| meta.modified()).is_ok_and(is_fresh);
                if is_gone || (is_own && !fresh && !in_use.contains(&id)) {
                    let _ = fs::remove_file(dir.join(&hex));
                } else {
                    live.insert(id);
                }
            }
            if is_gone {
                let _ = fs::remove_dir_all(&dir);
            }
        }
        Ok(live)
    }

    /// Moved away first, so that a crash cannot leave half a layer under a trusted name.
    fn remove_layer(&self, hex: &str) -> Result<u64> {
        let (from, to) = (self.layer_dir(hex), self.dir.join("tmp").join(format!("gc-{hex}")));
        let meta = fs::read(from.join("meta.json")).ok();
        let size =
            meta.and_then(|meta| serde_json::from_slice::<LayerMeta>(&meta).ok()).map_or(0, |meta| meta.size_bytes);
        fs::rename(&from, &to)
            .and_then(|()| fs::remove_dir_all(&to))
            .map_err(ImageError::io(format!("cannot remove {}", from.display())))?;
        Ok(size)
    }

    /// Only under the exclusive lock.
    fn sweep(&self) -> Result<()> {
        for name in entries(&self.dir.join("tmp"))? {
            let path = self.dir.join("tmp").join(name);
            let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(ImageError::io(format!("cannot sweep {}", path.display())))?;
        }
        Ok(())
    }
}

fn is_fresh(at: SystemTime) -> bool {
    // A clock that went backwards counts as fresh: keeping too long is harmless.
    SystemTime::now().duration_since(at).is_ok_and(|age| age < CLAIM_GRACE) || at > SystemTime::now()
}

fn entries(dir: &Path) -> Result<Vec<String>> {
    let read = fs::read_dir(dir).map_err(ImageError::io(format!("cannot read {}", dir.display())))?;
    Ok(read.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path)
        .map_err(ImageError::io(format!("cannot read {}; remove the image and fetch it again", path.display())))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((
        meta.ino(),
        meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
        meta.ctime() * 1_000_000_000 + meta.ctime_nsec(),
    ))
}

fn modified_ms(path: &Path) -> i64 {
    let modified = fs::metadata(path).and_then(|meta| meta.modified()).unwrap_or(UNIX_EPOCH);
    modified.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}
