//! `/etc/passwd` and `/etc/group` of a hostile image: resolving a user never panics and never invents a name.
#![no_main]

use infield_fuzz::{passwd::Accounts, small_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8], &str)| {
    let (passwd, group, wanted) = input;
    small_file::put("/etc/passwd", passwd);
    small_file::put("/etc/group", group);
    let accounts = Accounts::of_image();
    if let Ok(user) = accounts.resolve(wanted) {
        assert!(user.home.as_deref().is_none_or(|home| home.starts_with('/')));
        assert!(user.shell.as_deref().is_none_or(|shell| shell.starts_with('/')));
        assert!(!user.name.contains(['\n', ':']));
    }
});
