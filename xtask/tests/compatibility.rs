//! `spec/coverage.json` covers the published operations, names tests that exist, and its document is current.

#[test]
fn coverage_and_its_document_agree_with_the_tree() {
    let complaints = xtask::compatibility::check(&xtask::repository_root()).unwrap();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
