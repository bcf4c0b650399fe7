//! Makes an image from an archive on this host: a plain root file system, or what `docker save` and OCI tools write.

use super::{
    archive,
    config::{Document, ImageConfig},
    error::{ImageError, Result},
    progress::Progress,
    reference::Reference,
    store::{Giver, Image, Store},
};
use std::{io::Read, sync::Arc};
use time::OffsetDateTime;

impl Store {
    /// Reads the archive (plain, gzip or zstd) to its end and names the image. `over` wins over what the archive says.
    /// Blocks; call from a thread that may.
    pub fn import_tar(
        &self,
        reader: impl Read,
        reference: &str,
        over: &ImageConfig,
        progress: &dyn Progress,
    ) -> Result<Arc<Image>> {
        let reference = Reference::parse(reference)?;
        if reference.digest().is_some() {
            return Err(ImageError::Reference {
                reference: reference.to_string(),
                why: "an imported image cannot be named by a digest".into(),
            });
        }
        let staging = self.begin()?;
        progress.phase("unpacking");
        let staged = staging.unpack(reader, progress)?;
        if let Some(found) = archive::find(&staged.root())? {
            return found.import(self, staging, &reference, over, progress);
        }
        let document = Document::new(over, vec![staged.layer.diff_id.clone()], OffsetDateTime::now_utc());
        staging.commit(self, &document.to_bytes()?, vec![staged], &reference, Giver::Operator)
    }
}
