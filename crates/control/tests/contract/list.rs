//! Lists: cursor, pages, filters.

use crate::world::World;
use serde_json::json;
use std::collections::BTreeSet;

#[tokio::test]
async fn a_cursor_walk_yields_each_once() {
    let w = World::new().await;
    for n in 0..7 {
        w.sandbox(json!({"name": format!("s{n}")})).await;
    }
    for query in ["", "&sort=name&order=asc", "&sort=cpu", "&sort=createdAt&order=asc"] {
        let (mut seen, mut count, mut cursor) = (BTreeSet::new(), 0, String::new());
        loop {
            let page = w.get(&format!("/sandbox?limit=3{query}{cursor}")).await;
            assert_eq!(page.status, 200, "{}", page.text);
            for item in page.json["items"].as_array().unwrap() {
                seen.insert(item["id"].as_str().unwrap().to_owned());
                count += 1;
            }
            match page.json["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!((seen.len(), count), (7, 7), "{query}");
    }
    let page = w.get("/sandbox/paginated?page=2&limit=5&sort=name&order=asc").await.json;
    let names: Vec<&str> = page["items"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!((names, &page["total"], &page["totalPages"]), (vec!["s5", "s6"], &json!(7), &json!(2)));
}

#[tokio::test]
async fn bad_queries_are_400() {
    let w = World::new().await;
    for query in [
        "limit=0",
        "limit=201",
        "limit=x",
        "cursor=%21%21",
        "cursor=bm90IGpzb24",
        "states=destroyed",
        "states=flying",
        "labels=%7Bx",
        "labels=%5B%5D",
        "sort=color",
        "order=up",
        "minCpu=0",
        "minGpu=-1",
        "isPublic=maybe",
        "createdAtAfter=yesterday",
    ] {
        assert_eq!(w.get(&format!("/sandbox?{query}")).await.status, 400, "{query}");
    }
    for query in ["page=0", "limit=500", "sort=cpu", "states=destroyed"] {
        assert_eq!(w.get(&format!("/sandbox/paginated?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn filters() {
    let w = World::new().await;
    w.sandbox(json!({"name": "Alpha", "labels": {"team": "x", "n": "1"}, "public": true})).await;
    w.sandbox(json!({"name": "beta", "labels": {"team": "x"}})).await;
    w.post("/sandbox/beta/stop", json!({})).await;
    w.until_state("beta", "stopped").await;
    let count = async |query: &str| {
        let a = w.get(&format!("/sandbox?{query}")).await.json["items"].as_array().unwrap().len();
        let paged = query.replace("regionIds", "regions");
        let b = w.get(&format!("/sandbox/paginated?{paged}")).await.json["total"].as_u64().unwrap() as usize;
        assert_eq!(a, b, "{query}");
        a
    };
    for (query, n) in [
        ("", 2),
        ("name=alp", 1),
        ("labels=%7B%22team%22%3A%22x%22%7D", 2),
        ("labels=%7B%22team%22%3A%22x%22%2C%22n%22%3A%221%22%7D", 1),
        ("labels=%7B%22team%22%3A%22y%22%7D", 0),
        ("states=started", 1),
        ("states=started&states=stopped", 2),
        ("states[]=stopped", 1),
        ("snapshots=infield%2Fbase:1", 2),
        ("snapshots=x", 0),
        ("regionIds=us", 2),
        ("regionIds=eu", 0),
        ("isPublic=true", 1),
        ("minCpu=1&maxCpu=1", 2),
        ("minMemoryGiB=2", 0),
        ("lastEventAfter=2001-01-01T00:00:00Z", 2),
        ("lastEventBefore=2001-01-01T00:00:00.123456%2B0000", 0),
        ("isRecoverable=true", 0),
    ] {
        assert_eq!(count(query).await, n, "{query}");
    }
    for (query, n) in
        [("sandboxClasses=container", 2), ("sandboxClasses=linux-vm", 0), ("minGpu=1", 0), ("maxGpu=0", 2)]
    {
        assert_eq!(w.get(&format!("/sandbox?{query}")).await.json["items"].as_array().unwrap().len(), n, "{query}");
    }
}
