//! What language servers answer, in the one form that clients of the toolbox know: flat symbols, plain completion lists.
//! Pure; the text comes from a program that may send anything.

use infield_api::toolbox::{CompletionItem, CompletionList, LspLocation, LspRange, LspSymbol};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

/// Taken from one answer, flattened.
pub const SYMBOLS_MAX: usize = 20_000;
/// Taken from one answer.
pub const COMPLETIONS_MAX: usize = 20_000;
/// Classes within functions within classes; honest ones are a few levels deep.
const DEPTH_MAX: usize = 32;

/// `SymbolInformation` and `DocumentSymbol` together.
#[derive(Deserialize)]
struct Symbol<'a> {
    name: String,
    #[serde(default)]
    kind: u32,
    location: Option<Location>,
    range: Option<LspRange>,
    #[serde(borrow)]
    children: Option<Vec<&'a RawValue>>,
}

/// A workspace symbol may come without its range.
#[derive(Deserialize)]
struct Location {
    uri: String,
    #[serde(default)]
    range: LspRange,
}

/// Flat symbols; `uri` is that of the document asked about, for the hierarchical form, which names none.
///
/// Elements are read one by one, so that a long answer costs no more memory than the part that is taken.
pub fn symbols(answer: &RawValue, uri: &str) -> Result<Vec<LspSymbol>, serde_json::Error> {
    let listed: Option<Vec<&RawValue>> = serde_json::from_str(answer.get())?;
    let mut waiting: Vec<(usize, &RawValue)> = listed.unwrap_or_default().into_iter().rev().map(|s| (0, s)).collect();
    let mut flat = Vec::new();
    while let Some((depth, raw)) = waiting.pop() {
        if flat.len() == SYMBOLS_MAX {
            break;
        }
        let Symbol { name, kind, location, range, children } = serde_json::from_str(raw.get())?;
        let location = match location {
            Some(Location { uri, range }) => LspLocation { uri, range },
            None => LspLocation { uri: uri.to_owned(), range: range.unwrap_or_default() },
        };
        flat.push(LspSymbol { name, kind, location });
        if depth < DEPTH_MAX {
            waiting.extend(children.unwrap_or_default().into_iter().rev().map(|s| (depth + 1, s)));
        }
    }
    Ok(flat)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    #[serde(default)]
    is_incomplete: bool,
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
}

/// A list, an array of items, or nothing.
pub fn completions(answer: &RawValue) -> Result<CompletionList, serde_json::Error> {
    let text = answer.get();
    let listed = match text.as_bytes().first() {
        Some(b'[') => Listed { is_incomplete: false, items: serde_json::from_str(text)? },
        Some(b'{') => serde_json::from_str(text)?,
        _ => serde_json::from_str::<()>(text).map(|()| Listed { is_incomplete: false, items: Vec::new() })?,
    };
    let is_incomplete = listed.is_incomplete || listed.items.len() > COMPLETIONS_MAX;
    let mut items = Vec::new();
    for raw in listed.items.into_iter().take(COMPLETIONS_MAX) {
        let mut item: CompletionItem = serde_json::from_str(raw.get())?;
        item.documentation = item.documentation.and_then(documentation);
        items.push(item);
    }
    Ok(CompletionList { is_incomplete, items })
}

/// Clients' models want an object; a plain string becomes one, anything else goes.
fn documentation(raw: Box<RawValue>) -> Option<Box<RawValue>> {
    match raw.get().as_bytes().first() {
        Some(b'{') => Some(raw),
        Some(b'"') => {
            let value: String = serde_json::from_str(raw.get()).ok()?;
            to_raw_value(&serde_json::json!({"kind": "plaintext", "value": value})).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn both_forms_of_symbols() {
        let range = r#"{"start":{"line":1,"character":0},"end":{"line":3,"character":4}}"#;
        let flat = format!(
            r#"[{{"name":"A","kind":5,"location":{{"uri":"file:///x","range":{range}}},"containerName":"c"}}]"#
        );
        let found = symbols(&raw(&flat), "file:///asked").unwrap();
        assert_eq!((found[0].name.as_str(), found[0].kind, found[0].location.uri.as_str()), ("A", 5, "file:///x"));
        let deep = format!(
            r#"[{{"name":"A","kind":5,"range":{range},"selectionRange":{range},"children":[{{"name":"b","kind":6,"range":{range}}}]}},{{"name":"C","kind":5,"range":{range}}}]"#
        );
        let found = symbols(&raw(&deep), "file:///asked").unwrap();
        assert_eq!(found.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["A", "b", "C"]);
        assert_eq!((found[1].location.uri.as_str(), found[1].location.range.end.line), ("file:///asked", 3));
        assert_eq!(symbols(&raw("null"), "").unwrap(), []);
        assert!(symbols(&raw("{}"), "").is_err() && symbols(&raw("[1]"), "").is_err());
        let deeper = r#"[{"name":"x","children":"#.repeat(500) + "[]" + &"}]".repeat(500);
        assert_eq!(symbols(&raw(&deeper), "").unwrap().len(), DEPTH_MAX + 1);
        let many = format!("[{}{{\"label\":\"x\"}}]", "{\"label\":\"x\"},".repeat(COMPLETIONS_MAX));
        let list = completions(&raw(&many)).unwrap();
        assert!(list.is_incomplete && list.items.len() == COMPLETIONS_MAX);
    }

    #[test]
    fn both_forms_of_completions() {
        let text = r#"{"isIncomplete":true,"items":[{"label":"a","kind":3,"documentation":"text","data":{"x":1}},
            {"label":"b","documentation":{"kind":"markdown","value":"*"}},{"label":"c","documentation":7}]}"#;
        let list = serde_json::to_value(completions(&raw(text)).unwrap()).unwrap();
        let want = serde_json::json!({"isIncomplete": true, "items": [
            {"label": "a", "kind": 3, "documentation": {"kind": "plaintext", "value": "text"}},
            {"label": "b", "documentation": {"kind": "markdown", "value": "*"}}, {"label": "c"}]});
        assert_eq!(list, want);
        let list = completions(&raw(r#"[{"label":"x","insertText":"x()"}]"#)).unwrap();
        assert!(!list.is_incomplete && list.items.len() == 1);
        assert!(completions(&raw("null")).unwrap().items.is_empty());
        assert!(completions(&raw("7")).is_err());
    }

    proptest! {
        #[test]
        fn any_json_is_an_answer_or_an_error(text in "[\\[\\]{}\",:a-z0-9]{0,40}") {
            if let Ok(raw) = serde_json::from_str::<Box<RawValue>>(&text) {
                let _ = (symbols(&raw, "u"), completions(&raw));
            }
        }
    }
}
