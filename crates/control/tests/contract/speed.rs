//! How much time the control plane itself takes; printed, not judged: `cargo test -p infield-control speed -- --ignored --nocapture`.

use crate::world::World;
use serde_json::json;
use std::time::Instant;

const ROUNDS: usize = 1000;

#[tokio::test]
#[ignore = "a measurement"]
async fn speed_of_create_get_and_delete() {
    let w = World::new().await;
    let (mut create, mut get, mut delete, mut resolve, mut server) = (vec![], vec![], vec![], vec![], vec![]);
    let directory = w.app.directory();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let made = w.post("/sandbox", json!({"labels": {"code-toolbox-language": "python"}})).await;
        create.push(began.elapsed().as_micros());
        let timing = made.headers["server-timing"].to_str().unwrap().to_owned();
        let total = timing.rsplit("total;dur=").next().unwrap().parse::<f64>().unwrap();
        server.push((total * 1000.0) as u128);
        let id = made.json["id"].as_str().unwrap();
        let began = Instant::now();
        w.get(&format!("/sandbox/{id}")).await;
        get.push(began.elapsed().as_micros());
        directory.resolve(id, infield_api::directory::Credential::Bearer(&w.key)).await.unwrap();
        let began = Instant::now();
        directory.resolve(id, infield_api::directory::Credential::Bearer(&w.key)).await.unwrap();
        resolve.push(began.elapsed().as_micros());
        let began = Instant::now();
        w.delete(&format!("/sandbox/{id}")).await;
        delete.push(began.elapsed().as_micros());
    }
    for (name, mut us) in
        [("create", create), ("in the server", server), ("get", get), ("resolve", resolve), ("delete", delete)]
    {
        us.sort();
        println!("{name}: p50 {} us, p95 {} us", us[ROUNDS / 2], us[ROUNDS * 95 / 100]);
    }
}
