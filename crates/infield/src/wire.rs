//! The composition root: which implementation stands behind which seam. Decides nothing else.

use crate::{cli::HostArgs, paths::Paths, serve::http};
use anyhow::{Context, Result, anyhow};
use infield_api::runner::Runner;
use infield_client::RemoteRunner;
use infield_control::{App, ControlConfig, Limits, SshListener};
pub use infield_engine::Engine;
use infield_engine::{
    EngineConfig,
    doctor::DoctorConfig,
    image::{RegistriesConfig, Store as Images},
};
use infield_gateway::{
    Gateway, GatewayConfig,
    ssh::{HostKey, SshConfig, SshGateway},
};
use infield_store::Store;
use std::{
    borrow::Cow,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

/// The in-sandbox agent, made by this crate's build script.
pub const AGENT: &[u8] = include_bytes!(env!("INFIELD_AGENT"));

/// Where the database is, when it is not a file in the data folder. It can hold a password, so it is no argument.
pub const DATABASE_URL_ENV: &str = "INFIELD_DATABASE_URL";

/// The API side of the server.
pub struct Api {
    pub store: Store,
    pub control: App,
    gateway: Gateway,
    ssh: Option<SshGateway>,
}

/// Control plane and gateway over the runner's socket.
pub async fn api(
    paths: &Paths,
    public_url: Option<String>,
    preview_domain: Option<String>,
    ssh_port: Option<u16>,
) -> Result<Api> {
    let url = std::env::var(DATABASE_URL_ENV).ok().filter(|url| !url.is_empty());
    let store = Store::open(&url.unwrap_or_else(|| paths.database_url())).await.context("cannot open the database")?;
    let runner: Arc<dyn Runner> = Arc::new(RemoteRunner::new(paths.run()));
    let host_key = ssh_port.map(|_| HostKey::load_or_make(&paths.ssh_host_key())).transpose()?;
    let ssh = ssh_port.zip(host_key.as_ref()).map(|(port, key)| SshListener {
        port,
        host_key: key.public_line().to_owned(),
        fingerprint: key.fingerprint().to_owned(),
    });
    let config = ControlConfig { public_url, preview_domain, limits: limits(paths)?, ssh, ..ControlConfig::default() };
    let control = App::new(config, store.clone(), runner.clone());
    let ssh = host_key.map(|key| SshGateway::new(control.directory(), runner.clone(), key, SshConfig::default()));
    let gateway = Gateway::new(control.directory(), runner, GatewayConfig::default());
    Ok(Api { store, control, gateway, ssh })
}

/// A sandbox may have all of this host.
fn limits(paths: &Paths) -> Result<Limits> {
    let cores = std::thread::available_parallelism().context("cannot count the processors")?;
    let memory = rustix::system::sysinfo();
    let disk = rustix::fs::statvfs(&paths.data)
        .with_context(|| format!("cannot ask for the size of the file system of {}", paths.data.display()))?;
    let memory_bytes = memory.totalram.saturating_mul(u64::from(memory.mem_unit));
    Ok(Limits::of_host(cores.get(), memory_bytes, disk.f_blocks.saturating_mul(disk.f_frsize)))
}

/// The key of an empty database, or another one when the local command line has none.
pub async fn first_key(api: &Api, wanted: bool) -> Result<Option<String>> {
    if let Some(key) = infield_control::bootstrap(&api.store).await.context("cannot prepare the database")? {
        return Ok(Some(key.0));
    }
    if !wanted {
        return Ok(None);
    }
    let name = format!("local-{}", std::process::id());
    let key = infield_control::another_admin_key(&api.store, &name).await.context("cannot make a key")?;
    Ok(Some(key.0))
}

impl Api {
    pub fn ssh(&self) -> Option<SshGateway> {
        self.ssh.clone()
    }

    pub fn http(&self) -> http::App {
        http::App { api: self.control.router(), gateway: self.gateway.clone() }
    }
}

/// What the engine of this host is told.
pub fn engine(host: &HostArgs, socket_group: Option<u32>) -> Result<EngineConfig> {
    let mut config = EngineConfig::new(Paths::new(&host.data.data_dir).data, Cow::Borrowed(AGENT));
    config.image_dir = Some(image_dir(host));
    config.socket_group = socket_group;
    if let Some(subnet) = &host.subnet {
        config.subnet = parse_subnet(subnet)?;
    }
    if let Some(slots) = host.pool_size {
        config.slots_ready = slots as usize;
    }
    Ok(config)
}

/// The same settings for the doctor.
pub fn doctor(host: &HostArgs, listen: SocketAddr) -> Result<DoctorConfig> {
    let EngineConfig { data_dir, subnet, .. } = engine(host, None)?;
    Ok(DoctorConfig { data_dir, image_dir: image_dir(host), subnet, listen })
}

/// The image store of this host, for commands that work without a server.
pub fn images(host: &HostArgs) -> Result<Arc<Images>> {
    let folder = image_dir(host);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(Arc::new(Images::open(folder)?))
}

/// Mirrors, plain-http hosts and credentials of registries; nothing when the file is absent.
pub fn registries(host: &HostArgs) -> Result<RegistriesConfig> {
    Ok(RegistriesConfig::load(&Paths::new(&host.data.data_dir).data.join(RegistriesConfig::FILE))?)
}

fn image_dir(host: &HostArgs) -> PathBuf {
    match &host.image_dir {
        Some(folder) => Paths::new(folder).data,
        None => Paths::new(&host.data.data_dir).data.join("images"),
    }
}

fn parse_subnet(text: &str) -> Result<(Ipv4Addr, u8)> {
    let parsed = text.split_once('/').and_then(|(address, bits)| Some((address.parse().ok()?, bits.parse().ok()?)));
    parsed.filter(|(_, bits)| *bits <= 32).ok_or_else(|| anyhow!("--subnet {text:?} is not like 10.213.0.0/16"))
}
