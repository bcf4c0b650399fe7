//! What can be typed. The doc comments are the help texts; nothing is decided here.

use clap::{Args, Parser, Subcommand, builder::styling};
use std::path::PathBuf;

const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Green.on_default().bold())
    .usage(styling::AnsiColor::Green.on_default().bold())
    .literal(styling::AnsiColor::Cyan.on_default().bold());

/// Isolated computers for AI-written code, one program.
///
/// Start a server with `infield setup` and `infield serve`, then `infield spin` a sandbox; the official Daytona SDKs work
/// against it with DAYTONA_API_URL and DAYTONA_API_KEY.
#[derive(Parser)]
#[command(name = "infield", version, styles = STYLES, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the server: API, toolbox relay and the runner of this host
    Serve(ServeArgs),
    /// Make this machine ready: check it, create the user, build the default image
    Setup(SetupArgs),
    /// Check what this machine offers and say how to mend what is missing
    Doctor(DoctorArgs),
    /// Give back what a stopped server still holds in the kernel, before its data folder is removed
    Teardown(TeardownArgs),
    /// Run only the runner of this host (`serve` starts one by itself)
    Runner(RunnerArgs),
    /// Images on this host: list, pull, import, remove, gc
    #[command(subcommand)]
    Image(ImageCommand),
    /// API keys of the local server: create, list, delete
    #[command(subcommand)]
    Key(KeyCommand),
    #[command(flatten)]
    Hands(specgen_sandbox::Command),
    /// Measure a running server
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    #[command(hide = true)]
    Zygote,
    #[command(hide = true)]
    ApiWorker(ApiArgs),
}

/// Where the server keeps everything.
#[derive(Args, Clone)]
pub struct DataDir {
    /// Folder of the server's data
    #[arg(long, env = "INFIELD_DATA_DIR", default_value = "/var/lib/infield", value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// What the runner of a host is told.
#[derive(Args, Clone)]
pub struct HostArgs {
    #[command(flatten)]
    pub data: DataDir,
    /// IPv4 range for sandboxes; must not be in use on this host
    #[arg(long, env = "INFIELD_SUBNET", value_name = "CIDR")]
    pub subnet: Option<String>,
    /// Image store, when it is not in the data folder (several servers can share one)
    #[arg(long, env = "INFIELD_IMAGE_DIR", value_name = "DIR")]
    pub image_dir: Option<PathBuf>,
    /// Sandboxes kept ready: started ahead for the images used last, waiting to be claimed (64; 0 = none)
    #[arg(long, alias = "warm", env = "INFIELD_POOL_SIZE", value_name = "N")]
    pub pool_size: Option<u32>,
}

#[derive(Args, Clone)]
pub struct ServeArgs {
    #[command(flatten)]
    pub host: HostArgs,
    /// Address and port to listen on
    #[arg(long, env = "INFIELD_LISTEN", default_value = "127.0.0.1:3000", value_name = "ADDR:PORT")]
    pub listen: std::net::SocketAddr,
    /// Address under which clients see this server, when it is not the one in their Host header
    #[arg(long, env = "INFIELD_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Name below which previews are hosts, `{port}-{sandbox}.NAME[:PORT]`, when it is not the public URL's
    #[arg(long, env = "INFIELD_PREVIEW_DOMAIN", value_name = "NAME")]
    pub preview_domain: Option<String>,
    /// Address and port of the SSH gateway; `off` for none
    #[arg(long, env = "INFIELD_SSH_LISTEN", default_value = "127.0.0.1:2222", value_name = "ADDR:PORT")]
    pub ssh_listen: SshListen,
    /// User that runs the API (name or number) [default: infield if it exists, else 61184]
    #[arg(long, env = "INFIELD_USER", value_name = "USER")]
    pub user: Option<String>,
}

/// Where the SSH gateway listens, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshListen {
    Off,
    At(std::net::SocketAddr),
}

impl std::str::FromStr for SshListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At).map_err(|_| "neither `off` nor like 127.0.0.1:2222".to_owned()),
        }
    }
}

/// What the unprivileged API process is told; the listening socket is its standard input.
#[derive(Args, Clone)]
pub struct ApiArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[arg(long)]
    pub public_url: Option<String>,
    #[arg(long)]
    pub preview_domain: Option<String>,
    /// Number of the inherited socket on which the SSH gateway listens
    #[arg(long)]
    pub ssh_fd: Option<i32>,
}

#[derive(Args, Clone)]
pub struct RunnerArgs {
    #[command(flatten)]
    pub host: HostArgs,
    /// Group that may speak to the runner's socket
    #[arg(long, hide = true)]
    pub socket_gid: Option<u32>,
}

#[derive(Args)]
pub struct SetupArgs {
    #[command(flatten)]
    pub host: HostArgs,
    /// Address and port the server is meant to listen on
    #[arg(long, env = "INFIELD_LISTEN", default_value = "127.0.0.1:3000", value_name = "ADDR:PORT")]
    pub listen: std::net::SocketAddr,
    /// Install missing Debian packages without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Build the default image again even when it is there
    #[arg(long)]
    pub rebuild: bool,
    /// Debian mirror for the default image
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
}

#[derive(Args)]
pub struct TeardownArgs {
    #[command(flatten)]
    pub host: HostArgs,
    /// Delete the sandboxes that are left, with their files
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub host: HostArgs,
    /// Address and port the server is meant to listen on
    #[arg(long, env = "INFIELD_LISTEN", default_value = "127.0.0.1:3000", value_name = "ADDR:PORT")]
    pub listen: std::net::SocketAddr,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ImageArgs {
    #[command(flatten)]
    pub host: HostArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum ImageCommand {
    /// List images
    List(ImageArgs),
    /// Fetch an image from a registry
    Pull {
        /// For example debian:12 or ghcr.io/owner/name@sha256:…
        reference: String,
        /// Registry user; the password comes from INFIELD_REGISTRY_PASSWORD
        #[arg(long, env = "INFIELD_REGISTRY_USERNAME")]
        username: Option<String>,
        #[command(flatten)]
        args: ImageArgs,
    },
    /// Make an image from a root file system in a tar file (plain, gzip or zstd)
    Import {
        tar: PathBuf,
        /// Name of the new image
        #[arg(long, short)]
        name: String,
        #[command(flatten)]
        args: ImageArgs,
    },
    /// Forget an image
    Remove {
        reference: String,
        #[command(flatten)]
        args: ImageArgs,
    },
    /// Delete layers that no image uses
    Gc(ImageArgs),
}

#[derive(Args)]
pub struct KeyArgs {
    #[command(flatten)]
    pub data: DataDir,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum KeyCommand {
    /// Create an API key and print it; it is shown this once
    Create {
        name: String,
        /// What the key may do, comma separated [default: write:sandboxes,delete:sandboxes]
        #[arg(long, value_delimiter = ',')]
        permissions: Vec<String>,
        /// When it ends, RFC 3339
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        #[command(flatten)]
        args: KeyArgs,
    },
    /// List API keys; secrets are masked
    List(KeyArgs),
    /// Delete an API key
    Delete {
        name: String,
        #[command(flatten)]
        args: KeyArgs,
    },
}

#[derive(Subcommand)]
pub enum BenchCommand {
    /// Time to interactive: from POST /sandbox to the first byte of the first command's output
    Tti(TtiArgs),
}

#[derive(Args)]
pub struct TtiArgs {
    #[command(flatten)]
    pub target: specgen_sandbox::Target,
    /// Sandboxes made one after the other
    #[arg(long, default_value_t = 100)]
    pub count: usize,
    /// Sandboxes asked for at the same moment
    #[arg(long, default_value_t = 50)]
    pub burst: usize,
    /// Create, exec and delete in flight when throughput is measured
    #[arg(long, default_value_t = 16)]
    pub in_flight: usize,
    /// Idle sandboxes over which memory is measured; 0 skips it
    #[arg(long, default_value_t = 100)]
    pub idle: usize,
    /// Snapshot to make sandboxes from [default: the server's]
    #[arg(long)]
    pub snapshot: Option<String>,
}
