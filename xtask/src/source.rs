//! What tidy sees of one Rust file: functions with their lengths, words, string literals, forbidden calls.
//!
//! Parsed with `syn`, so that comments and strings are never mistaken for code. Knows nothing of crates or rules.

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute,
    spanned::Spanned,
    visit::{self, Visit},
};

/// One function of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub first_line: usize,
    pub lines: usize,
}

/// A word (identifier, or string literal) and where it stands. Documentation and test code are not listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub line: usize,
}

/// The facts of one file.
#[derive(Debug, Default)]
pub struct Facts {
    pub functions: Vec<Function>,
    pub identifiers: Vec<Word>,
    pub strings: Vec<Word>,
    /// `.unwrap()` and `.expect(…)` outside test code.
    pub unwraps: Vec<Word>,
    /// `unsafe` anywhere, test code included.
    pub unsafe_lines: Vec<usize>,
    /// `env::var` and its siblings outside test code.
    pub env_reads: Vec<Word>,
}

/// Reads a whole file of Rust.
pub fn read(text: &str) -> syn::Result<Facts> {
    let file = syn::parse_file(text)?;
    let mut facts = Facts::default();
    let mut functions = Functions { found: &mut facts.functions };
    functions.visit_file(&file);
    let mut calls = Calls { facts: &mut facts, test_depth: 0 };
    calls.visit_file(&file);
    let tokens: TokenStream = text.parse().map_err(|error| syn::Error::new(file.span(), format!("{error}")))?;
    collect(tokens, &mut facts);
    Ok(facts)
}

/// True for `#[test]`, `#[tokio::test]`, `#[cfg(test)]` and the like.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        let last = path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
        last == "test" || (last == "cfg" && mentions_test(attribute))
    })
}

fn mentions_test(attribute: &Attribute) -> bool {
    match &attribute.meta {
        syn::Meta::List(list) => {
            list.tokens.clone().into_iter().any(|t| matches!(&t, TokenTree::Ident(word) if word == "test"))
        }
        _ => false,
    }
}

struct Functions<'a> {
    found: &'a mut Vec<Function>,
}

impl Functions<'_> {
    fn add(&mut self, name: &syn::Ident, signature: &syn::Signature, block: &syn::Block) {
        let first_line = signature.span().start().line;
        let lines = block.span().end().line.saturating_sub(first_line) + 1;
        self.found.push(Function { name: name.to_string(), first_line, lines });
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig.ident, &item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig.ident, &item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }
    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig.ident, &item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

struct Calls<'a> {
    facts: &'a mut Facts,
    test_depth: usize,
}

impl Calls<'_> {
    fn inside(&mut self, test: bool, walk: impl FnOnce(&mut Self)) {
        self.test_depth += usize::from(test);
        walk(self);
        self.test_depth -= usize::from(test);
    }
}

impl<'ast> Visit<'ast> for Calls<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.inside(is_test(&item.attrs), |me| visit::visit_item_fn(me, item));
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.inside(is_test(&item.attrs), |me| visit::visit_impl_item_fn(me, item));
    }
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.inside(is_test(&item.attrs), |me| visit::visit_item_impl(me, item));
    }
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.inside(is_test(&item.attrs), |me| visit::visit_item_mod(me, item));
    }
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let name = call.method.to_string();
        if self.test_depth == 0 && (name == "unwrap" || name == "expect") {
            self.facts.unwraps.push(Word { text: name, line: call.method.span().start().line });
        }
        visit::visit_expr_method_call(self, call);
    }
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if let [.., module, function] = words.as_slice()
            && self.test_depth == 0
            && module == "env"
            && ["var", "var_os", "vars", "vars_os"].contains(&function.as_str())
        {
            self.facts.env_reads.push(Word { text: function.clone(), line: path.span().start().line });
        }
        visit::visit_path(self, path);
    }
}

/// Collects words of code that is not documentation and not test code.
fn collect(tokens: TokenStream, facts: &mut Facts) {
    let mut tokens = tokens.into_iter().peekable();
    let mut skip_next_item = false;
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(p) if p.as_char() == '#' => {
                if matches!(tokens.peek(), Some(TokenTree::Punct(p)) if p.as_char() == '!') {
                    tokens.next();
                }
                if let Some(TokenTree::Group(group)) = tokens.peek() {
                    skip_next_item |= attribute_marks_test(group.stream());
                    tokens.next();
                }
            }
            TokenTree::Group(group) => {
                let body_of_test = skip_next_item && group.delimiter() == proc_macro2::Delimiter::Brace;
                if body_of_test {
                    skip_next_item = false;
                    note_unsafe(group.stream(), facts);
                } else {
                    collect(group.stream(), facts);
                }
            }
            TokenTree::Punct(p) if p.as_char() == ';' => skip_next_item = false,
            TokenTree::Ident(word) => {
                let line = word.span().start().line;
                if word == "unsafe" {
                    facts.unsafe_lines.push(line);
                }
                facts.identifiers.push(Word { text: word.to_string(), line });
            }
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if text.contains('"') {
                    facts.strings.push(Word { text, line: literal.span().start().line });
                }
            }
            TokenTree::Punct(_) => {}
        }
    }
}

fn attribute_marks_test(tokens: TokenStream) -> bool {
    let words: Vec<String> = flatten(tokens);
    match words.first().map(String::as_str) {
        Some("cfg") => words.iter().any(|w| w == "test"),
        Some("test") => true,
        Some("tokio") => words.get(1).is_some_and(|w| w == "test"),
        _ => false,
    }
}

fn flatten(tokens: TokenStream) -> Vec<String> {
    let mut words = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Ident(word) => words.push(word.to_string()),
            TokenTree::Group(group) => words.extend(flatten(group.stream())),
            _ => {}
        }
    }
    words
}

fn note_unsafe(tokens: TokenStream, facts: &mut Facts) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) if word == "unsafe" => facts.unsafe_lines.push(word.span().start().line),
            TokenTree::Group(group) => note_unsafe(group.stream(), facts),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_functions_and_their_lengths() {
        let facts = read("//! x\nfn one() {}\nimpl A {\n    fn two() {\n        3;\n    }\n}\n").unwrap();
        let lengths: Vec<_> = facts.functions.iter().map(|f| (f.name.as_str(), f.lines)).collect();
        assert_eq!(lengths, [("one", 1), ("two", 3)]);
    }

    #[test]
    fn documentation_comments_and_tests_are_not_code() {
        let text = "//! cgroup\n/// quota\nfn a() { /* sqlx */ let x = \"said\"; }\n#[cfg(test)]\nmod tests { fn b() { axum(); unsafe {} } }\nfn c() { later() }\n";
        let facts = read(text).unwrap();
        let words: Vec<_> = facts.identifiers.iter().map(|w| w.text.as_str()).collect();
        for absent in ["cgroup", "quota", "sqlx", "axum"] {
            assert!(!words.contains(&absent), "{absent} is not code");
        }
        assert!(words.contains(&"later"));
        assert_eq!(facts.strings.len(), 1);
        assert_eq!(facts.unsafe_lines, [5]);
    }

    #[test]
    fn unwraps_and_environment_reads_count_outside_tests_only() {
        let text =
            "fn a() { b().unwrap(); std::env::var(\"X\"); }\n#[test]\nfn t() { c().expect(\"\"); env::vars(); }\n";
        let facts = read(text).unwrap();
        assert_eq!(facts.unwraps.len(), 1);
        assert_eq!(facts.env_reads.len(), 1);
    }
}
