//! The engine by itself, for its tests and for measuring it: no public API, no database, no command line comfort.
//!
//! `engine-lab zygote`; `engine-lab import DATA TAR REFERENCE`; `engine-lab runner DATA AGENT SUBNET`; `engine-lab bench DATA AGENT SUBNET IMAGE COUNT [PARALLEL]`.

use infield_api::SandboxId;
use infield_api::runner::{Runner, Running, SandboxSpec};
use infield_engine::image::{ImageConfig, Silent, Store};
use infield_engine::{Engine, EngineConfig, server, zygote};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Enough for the measurements, small enough for any test machine.
const POOL_BYTES: u64 = 4 << 30;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [zygote::SUBCOMMAND] => return zygote::main(),
        ["import", data, tar, reference] => import(data, tar, reference),
        ["runner", data, agent, subnet] => runner(data, agent, subnet),
        ["bench", data, agent, subnet, image, count, rest @ ..] => {
            bench(data, agent, subnet, image, count, rest.first())
        }
        _ => {
            Err("usage: engine-lab zygote | import DATA TAR REFERENCE | runner DATA AGENT SUBNET | bench DATA AGENT SUBNET IMAGE COUNT [PARALLEL]"
                .into())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("engine-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn config(data: &str, agent: &str, subnet: &str) -> Result<EngineConfig, Box<dyn Error>> {
    let (network, prefix) = subnet.split_once('/').ok_or("SUBNET is ADDRESS/PREFIX")?;
    let agent = std::fs::read(agent)?;
    Ok(EngineConfig {
        subnet: (network.parse()?, prefix.parse()?),
        pool_bytes: Some(POOL_BYTES),
        ..EngineConfig::new(data.into(), agent.into())
    })
}

fn import(data: &str, tar: &str, reference: &str) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(data)?;
    let store = Store::open_for(std::path::Path::new(data).join("images"), data.as_ref())?;
    let image = store.import_tar(std::fs::File::open(tar)?, reference, &ImageConfig::default(), &Silent)?;
    println!("{}", image.id);
    Ok(())
}

fn runner(data: &str, agent: &str, subnet: &str) -> Result<(), Box<dyn Error>> {
    server::run_runner(config(data, agent, subnet)?, |recovery| {
        println!("ready {recovery:?}");
    })?;
    Ok(())
}

fn spec(image: &str) -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::random(),
        name: "bench".to_owned(),
        image: image.to_owned(),
        user: None,
        env: BTreeMap::new(),
        labels: BTreeMap::new(),
        cpu: 2,
        memory_mib: 512,
        disk_mib: 1024,
        network_block_all: false,
        entrypoint: Vec::new(),
        volumes: vec![],
    }
}

fn bench(
    data: &str,
    agent: &str,
    subnet: &str,
    image: &str,
    count: &str,
    parallel: Option<&&str>,
) -> Result<(), Box<dyn Error>> {
    let (count, parallel): (usize, usize) = (count.parse()?, parallel.map_or(Ok(1), |p| p.parse())?);
    let config = config(data, agent, subnet)?;
    let zygotes = zygote::spawn(config.zygotes)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let (engine, recovery) = Engine::open(config, zygotes)?;
        println!("{recovery:?}");
        let engine = Arc::new(engine);
        let (mut creates, mut firsts, mut destroys) = (Vec::new(), Vec::new(), Vec::new());
        let mut phases: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let begin = Instant::now();
        let mut left = count;
        while left > 0 {
            let batch = parallel.min(left);
            left -= batch;
            tokio::time::sleep(std::time::Duration::from_millis(if parallel > 1 { 300 } else { 5 })).await;
            let tasks: Vec<_> =
                (0..batch).map(|_| tokio::spawn(one(Arc::clone(&engine), spec(image), data.to_owned()))).collect();
            for task in tasks {
                let (running, create, first, destroy) = task.await?.map_err(|e| e.to_string())?;
                creates.push(create);
                firsts.push(first);
                destroys.push(destroy);
                running.phases.into_iter().for_each(|p| phases.entry(p.name).or_default().push(p.duration_us));
            }
        }
        println!("{count} cycles, {parallel} at a time, {:.1} s", begin.elapsed().as_secs_f64());
        for (name, list) in [("create", &mut creates), ("create+exec", &mut firsts), ("destroy", &mut destroys)] {
            println!("{name:<16} p50 {:>6} us  p95 {:>6} us", quantile(list, 50), quantile(list, 95));
        }
        for (name, list) in &mut phases {
            println!("  {name:<22} p50 {:>6} us  p95 {:>6} us", quantile(list, 50), quantile(list, 95));
        }
        engine.close();
        Ok(())
    })
}

type Measured = (Running, u64, u64, u64);

async fn one(engine: Arc<Engine>, spec: SandboxSpec, data: String) -> Result<Measured, Box<dyn Error + Send + Sync>> {
    let (id, begin) = (spec.id, Instant::now());
    let running = engine.create(spec).await?;
    let create = begin.elapsed();
    let path = format!("{data}/run/agents/{id}.sock");
    let ran = tokio::task::spawn_blocking(move || exec(&path, "/bin/echo\nhi")).await?;
    let first = begin.elapsed();
    if ran? != "hi\n" {
        return Err("unexpected output".into());
    }
    let begin = Instant::now();
    engine.destroy(id).await?;
    Ok((running, create.as_micros() as u64, first.as_micros() as u64, begin.elapsed().as_micros() as u64))
}

/// The test agent's exec: the body's lines are the words of the command.
fn exec(socket: &str, words: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    write!(stream, "POST /exec HTTP/1.1\r\nContent-Length: {}\r\n\r\n{words}", words.len())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn quantile(list: &mut [u64], percent: usize) -> u64 {
    list.sort_unstable();
    list.get((list.len().saturating_sub(1)) * percent / 100).copied().unwrap_or(0)
}
