//! The key by which clients know this server again: made once, kept in a file that only the API's user can read.

use russh::keys::{
    HashAlg, PrivateKey,
    ssh_key::{
        LineEnding,
        private::{Ed25519Keypair, KeypairData},
    },
};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

const COMMENT: &str = "infield";

#[derive(Clone)]
pub struct HostKey {
    pub(super) private: PrivateKey,
    public_line: String,
    fingerprint: String,
}

impl HostKey {
    /// Reads the key, or makes it when there is none.
    pub fn load_or_make(path: &Path) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("SSH host key {}: {e}", path.display()));
        match fs::read_to_string(path) {
            Ok(text) => {
                let hint = "it is no OpenSSH private key; put the old file back, or remove it for a new key";
                let key = PrivateKey::from_openssh(&text).map_err(|_| named(io::Error::other(hint)))?;
                Self::of(key).map_err(named)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let key = make().map_err(named)?;
                write(path, &key).map_err(named)?;
                Self::of(key).map_err(named)
            }
            Err(e) => Err(named(e)),
        }
    }

    fn of(private: PrivateKey) -> io::Result<Self> {
        let public = private.public_key();
        let line = public.to_openssh().map_err(io::Error::other)?;
        // Kind and key; the comment is nobody's business.
        let public_line = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let fingerprint = public.fingerprint(HashAlg::Sha256).to_string();
        Ok(Self { private, public_line, fingerprint })
    }

    /// `ssh-ed25519 AAAA…`
    pub fn public_line(&self) -> &str {
        &self.public_line
    }

    /// `SHA256:…`
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn make() -> io::Result<PrivateKey> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    PrivateKey::new(KeypairData::from(Ed25519Keypair::from_seed(&seed)), COMMENT).map_err(io::Error::other)
}

fn write(path: &Path, key: &PrivateKey) -> io::Result<()> {
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let partial = path.with_extension("new");
    let _ = fs::remove_file(&partial);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once() {
        let folder = std::env::temp_dir().join(format!("infield-hostkey-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("key");
        let made = HostKey::load_or_make(&path).unwrap();
        let again = HostKey::load_or_make(&path).unwrap();
        assert_eq!((made.public_line(), made.fingerprint()), (again.public_line(), again.fingerprint()));
        assert!(made.public_line().starts_with("ssh-ed25519 AAAA") && made.fingerprint().starts_with("SHA256:"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "broken").unwrap();
        assert!(HostKey::load_or_make(&path).is_err_and(|e| e.to_string().contains("remove it")));
        fs::remove_dir_all(&folder).unwrap();
    }
}
