//! Languages and their servers: what is started, what to install when it is missing, which files belong to it.

use crate::direct;
use crate::env::Vars;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Python,
    TypeScript,
    JavaScript,
}

impl Language {
    pub const NAMES: &'static str = "python, typescript and javascript";

    pub fn of(id: &str) -> Option<Self> {
        match id {
            "python" => Some(Self::Python),
            "typescript" => Some(Self::TypeScript),
            "javascript" => Some(Self::JavaScript),
            _ => None,
        }
    }

    /// Program and arguments.
    pub fn command(self) -> &'static [&'static str] {
        match self {
            Self::Python => &["pylsp"],
            Self::TypeScript | Self::JavaScript => &["typescript-language-server", "--stdio"],
        }
    }

    pub fn install_hint(self) -> &'static str {
        match self {
            Self::Python => "pip install python-lsp-server",
            Self::TypeScript | Self::JavaScript => "npm install -g typescript-language-server typescript",
        }
    }

    fn extensions(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Python => &[("py", "python"), ("pyi", "python")],
            Self::TypeScript | Self::JavaScript => &[
                ("ts", "typescript"),
                ("tsx", "typescriptreact"),
                ("mts", "typescript"),
                ("cts", "typescript"),
                ("js", "javascript"),
                ("jsx", "javascriptreact"),
                ("mjs", "javascript"),
                ("cjs", "javascript"),
            ],
        }
    }

    /// Whether a file with this name belongs to the language.
    pub fn has(self, path: &Path) -> bool {
        self.by_extension(path).is_some()
    }

    fn by_extension(self, path: &Path) -> Option<&'static str> {
        let extension = path.extension()?.to_str()?;
        self.extensions().iter().find(|(known, _)| *known == extension).map(|(_, id)| *id)
    }

    /// The identifier a document is opened with.
    pub fn document_id(self, path: &Path) -> &'static str {
        self.by_extension(path).unwrap_or(match self {
            Self::Python => "python",
            Self::TypeScript => "typescript",
            Self::JavaScript => "javascript",
        })
    }

    /// Looked for on `PATH` and where `pip install --user` puts programs, at every start.
    pub fn program(self, vars: &Vars) -> Option<PathBuf> {
        let name = self.command()[0];
        direct::search(name, vars).or_else(|| {
            let local = Path::new(vars.get("HOME")?).join(".local/bin").join(name);
            Some(local).filter(|p| direct::is_executable(p))
        })
    }
}
