//! The house rules run with every `cargo test`.

#[test]
fn the_tree_is_tidy() {
    let complaints = xtask::tidy::check(&xtask::repository_root()).unwrap();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
