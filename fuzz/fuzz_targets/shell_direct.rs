//! A command that is taken past the shell has no character the shell would read, and its words are the command's.
#![no_main]

use infield_fuzz::{direct, shell::Family};
use libfuzzer_sys::fuzz_target;
use std::{collections::BTreeMap, path::Path};

fuzz_target!(|command: &str| {
    let Some(words) = direct::simple_words(command) else { return };
    assert_eq!(words, command.split_ascii_whitespace().collect::<Vec<_>>());
    let special = |c: char| "|&;()<>{}[]*?!~#$`'\"\\\n\r\0^".contains(c) || c.is_control() || !c.is_ascii();
    assert!(words.iter().all(|word| !word.chars().any(special)), "{words:?}");
    assert!(!words[0].contains('='), "an assignment");
    let vars =
        BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("HOME".to_owned(), "/root".to_owned())]);
    for family in [Family::Bash, Family::Dash, Family::Other] {
        if let Some(plan) = direct::plan(command, family, Path::new("/"), &vars.clone().into_iter().collect()) {
            assert!(plan.program.is_absolute() || words[0].contains('/'));
            assert_eq!(plan.words, words);
        }
    }
});
