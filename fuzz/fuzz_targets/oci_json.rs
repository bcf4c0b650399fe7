//! Manifests, indexes, configurations and references from a registry: no panic, and accepted digests are digests.
#![no_main]

use infield_fuzz::image::{
    config::{Document, LAYERS_MAX},
    manifest::{Manifest, Platform},
    reference::{Reference, hex_of},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match Manifest::parse(data) {
        Ok(Manifest::Index(index)) => {
            // Digests of an index are checked by who follows one of them.
            let _ = (index.choose(&Platform::host()), index.offered());
        }
        Ok(Manifest::Image(image)) => {
            for descriptor in image.layers.iter().chain([&image.config]) {
                let hex = hex_of(&descriptor.digest).expect("an accepted digest");
                assert!(hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
            }
        }
        Err(_) => {}
    }
    if let Ok(document) = Document::parse(data) {
        assert!(document.rootfs.diff_ids.len() <= LAYERS_MAX);
        let config = document.config();
        let _ = document.created_at_ms();
        let bytes = document.overridden(&config).expect("a document can be written");
        let again = Document::parse(&bytes).expect("what was written can be read").config();
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(reference) = Reference::parse(text)
    {
        let shown = reference.to_string();
        let again = Reference::parse(&shown).expect("its own spelling is accepted");
        // A tag beside a digest means nothing and is not shown.
        let seen = |r: &Reference| [r.registry().to_owned(), r.repository().to_owned(), r.tag_or_digest().to_owned()];
        assert_eq!(seen(&again), seen(&reference));
        let path = format!("/v2/{}/manifests/{}", reference.repository(), reference.tag_or_digest());
        assert!(!path.contains("..") || !path.split('/').any(|part| part == ".."), "{path}");
        assert!(path.bytes().all(|b| b.is_ascii_graphic()), "{path:?}");
    }
});
