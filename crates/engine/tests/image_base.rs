//! The default image, really built from Debian packages (once per store) and really used.
//!
//! `INFIELD_TEST_IMAGE_DIR` names a store that has it already; otherwise it is built in `target/infield-images`.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where by panicking.

mod image_support;

use image_support::{Overlay, Scratch};
use infield_engine::{
    image::{Progress, Store, Unit},
    setup::{SetupOptions, build_base_image},
};
use std::{path::PathBuf, sync::Mutex};

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Progress for Heard {
    fn phase(&self, name: &str) {
        println!("{name}");
        self.0.lock().unwrap().push(name.into());
    }
    fn total(&self, amount: u64, unit: Unit) {
        println!("{amount} {unit:?}");
    }
    fn advance(&self, _amount: u64) {}
}

fn store() -> Store {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/infield-images");
    Store::open(std::env::var_os("INFIELD_TEST_IMAGE_DIR").map_or_else(default, PathBuf::from)).unwrap()
}

#[test]
#[ignore = "needs a Debian mirror and a minute the first time"]
fn the_default_image_has_what_a_sandbox_needs() {
    let (store, heard) = (store(), Heard::default());
    let options = SetupOptions::default();
    let began = std::time::Instant::now();
    let image = build_base_image(&store, &options, &heard).unwrap();
    println!("{} {} MB {:?}", image.id, image.size_bytes / 1_000_000, began.elapsed());
    assert_eq!(image.config.user.as_deref(), Some("daytona"));

    // Again: nothing to do.
    let again = Heard::default();
    assert_eq!(build_base_image(&store, &options, &again).unwrap().id, image.id);
    assert_eq!(again.0.into_inner().unwrap(), Vec::<String>::new());

    let scratch = Scratch::new();
    let overlay = Overlay::mount(&scratch, &image.layers);
    let said = overlay.run_as(
        "daytona",
        &image.config.env,
        "set -e; cd; id -un; pwd; sudo -n id -u; python --version; python3 -c 'import venv, pylsp'; pip --version; \
         node --version; npm --version; git --version; curl --version; ssh -V; cc --version; vi --version; less --version; \
         ps --version; ip -V; ping -V; test ! -e /usr/lib/python3.11/EXTERNALLY-MANAGED; \
         test -z \"$(ls -A /var/lib/apt/lists)\"; test ! -s /etc/machine-id; python -m venv /tmp/v; /tmp/v/bin/pip --version; \
         npm config get prefix; sudo -n dpkg --audit; test ! -e /dev/sda; echo all is well",
    );
    println!("{said}");
    assert!(said.starts_with("daytona\n/home/daytona\n0\nPython 3."), "{said}");
    assert!(said.contains("/home/daytona/.local") && said.ends_with("all is well\n"), "{said}");
}
