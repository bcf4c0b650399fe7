//! `infield image`: the image store of this host, used directly; a running server sees the result at once.

use crate::{
    cli::{HostArgs, ImageArgs, ImageCommand},
    paths::Paths,
    setup::Bar,
    wire,
};
use anyhow::{Context, Result};
use infield_engine::image::{Credentials, Image, ImageConfig, PullOptions};
use serde_json::{Value, json};
use std::{collections::HashSet, fs::File, path::Path, process::ExitCode};

pub fn main(command: ImageCommand) -> Result<ExitCode> {
    let (json, text, value) = match command {
        ImageCommand::List(args) => list(&args)?,
        ImageCommand::Pull { reference, username, args } => pull(&reference, username, &args)?,
        ImageCommand::Import { tar, name, args } => import(&tar, &name, &args)?,
        ImageCommand::Remove { reference, args } => {
            wire::images(&args.host)?.remove(&reference)?;
            (
                args.json,
                format!("removed {reference}; `infield image gc` frees its space"),
                json!({"removed": reference}),
            )
        }
        ImageCommand::Gc(args) => gc(&args)?,
    };
    println!("{}", if json { value.to_string() } else { text });
    Ok(ExitCode::SUCCESS)
}

type Said = (bool, String, Value);

fn list(args: &ImageArgs) -> Result<Said> {
    let images = wire::images(&args.host)?.list()?;
    let mut rows = vec![["REFERENCE", "ID", "SIZE"].map(String::from).to_vec()];
    for image in &images {
        for reference in image.references.iter().chain(&image.pulled) {
            rows.push(vec![reference.clone(), image.id[..image.id.len().min(19)].to_owned(), size(image.size_bytes)]);
        }
    }
    let text = if images.is_empty() {
        "no images; `infield setup` builds the default one, `infield image pull` fetches others".to_owned()
    } else {
        specgen_sandbox::table(&rows).trim_end().to_owned()
    };
    Ok((args.json, text, images.iter().map(to_json).collect()))
}

fn pull(reference: &str, username: Option<String>, args: &ImageArgs) -> Result<Said> {
    let store = wire::images(&args.host)?;
    let password = std::env::var("INFIELD_REGISTRY_PASSWORD").ok();
    let auth = username.zip(password).map(|(username, password)| Credentials { username, password });
    let options = PullOptions { auth, registries: wire::registries(&args.host)?, platform: None, reach: None };
    let bar = Bar::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let image = runtime.block_on(store.pull(reference, &options, &bar))?;
    Ok(said(args, &image, reference))
}

fn import(tar: &Path, name: &str, args: &ImageArgs) -> Result<Said> {
    let file = File::open(tar).with_context(|| format!("cannot open {}", tar.display()))?;
    let bar = Bar::new();
    let image = wire::images(&args.host)?.import_tar(file, name, &ImageConfig::default(), &bar)?;
    Ok(said(args, &image, name))
}

fn gc(args: &ImageArgs) -> Result<Said> {
    let report = wire::images(&args.host)?.gc(&in_use(&args.host)?)?;
    let text = if report.busy {
        "an image is being made right now; nothing was collected, try again later".to_owned()
    } else {
        format!(
            "removed {} images and {} layers, {} freed",
            report.images_removed,
            report.layers_removed,
            size(report.bytes_freed)
        )
    };
    let json = json!({
        "imagesRemoved": report.images_removed, "layersRemoved": report.layers_removed,
        "bytesFreed": report.bytes_freed, "busy": report.busy,
    });
    Ok((args.json, text, json))
}

/// Images of this host's sandboxes, running or not: `sandboxes/<id>.json` names them.
fn in_use(host: &HostArgs) -> Result<HashSet<String>> {
    let folder = Paths::new(&host.data.data_dir).data.join("sandboxes");
    let mut ids = HashSet::new();
    let entries = match std::fs::read_dir(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(ids),
        other => other.with_context(|| format!("cannot read {}", folder.display()))?,
    };
    for entry in entries {
        let text = std::fs::read(entry?.path()).unwrap_or_default();
        let record: Value = serde_json::from_slice(&text).unwrap_or_default();
        collect_ids(&record, &mut ids);
    }
    Ok(ids)
}

/// Every image id in a record, wherever it stands: too much kept is harmless, too little is not.
fn collect_ids(value: &Value, ids: &mut HashSet<String>) {
    match value {
        Value::String(text) if text.starts_with("sha256:") => drop(ids.insert(text.clone())),
        Value::Array(all) => all.iter().for_each(|v| collect_ids(v, ids)),
        Value::Object(all) => all.values().for_each(|v| collect_ids(v, ids)),
        _ => {}
    }
}

fn said(args: &ImageArgs, image: &Image, name: &str) -> Said {
    (args.json, format!("{name} is {} ({})", image.id, size(image.size_bytes)), to_json(image))
}

fn to_json(image: &Image) -> Value {
    json!({
        "id": image.id, "references": image.references, "pulled": image.pulled, "sizeBytes": image.size_bytes, "createdAtMs": image.created_at_ms,
    })
}

/// `1.4 GiB`, for people.
pub fn size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!([size(10), size(1536), size(3 << 30)], ["10 bytes", "1.5 KiB", "3.0 GiB"]);
    }

    #[test]
    fn image_ids_are_found_anywhere_in_a_record() {
        let mut ids = HashSet::new();
        collect_ids(&json!({"a": ["sha256:1"], "b": {"image": "sha256:2"}, "c": "x"}), &mut ids);
        assert_eq!(ids, HashSet::from(["sha256:1".to_owned(), "sha256:2".to_owned()]));
    }
}
