//! The environment that commands inherit. Changes make a new map; running commands and requests keep the one they took.

use crate::passwd::User;
use infield_api::toolbox::UpdateEnvRequest;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

pub type Vars = BTreeMap<String, String>;

/// What `login` and Docker give when the image says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All variables together, as they may be at a sandbox's start. Every command is given them.
const BYTES_MAX: usize = 1 << 20;

pub struct Env(RwLock<Arc<Vars>>);

impl Env {
    pub fn new(vars: Vars) -> Self {
        Self(RwLock::new(Arc::new(vars)))
    }

    pub fn snapshot(&self) -> Arc<Vars> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The inherited variables with a request's own laid over them.
    pub fn with(&self, over: Option<&Vars>) -> Arc<Vars> {
        let base = self.snapshot();
        match over {
            Some(over) if !over.is_empty() => {
                let mut vars = (*base).clone();
                vars.extend(over.iter().map(|(k, v)| (k.clone(), v.clone())));
                Arc::new(vars)
            }
            _ => base,
        }
    }

    /// All or nothing; refused is what no process could be given.
    pub fn update(&self, change: UpdateEnvRequest) -> Result<(), String> {
        let mut slot = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut vars = (**slot).clone();
        for name in change.unset.unwrap_or_default() {
            vars.remove(&name);
        }
        let set = change.set.unwrap_or_default();
        if let Some(prefix) = change.unset_value_prefix.filter(|p| !p.is_empty()) {
            vars.retain(|name, value| set.contains_key(name) || !value.starts_with(&prefix));
        }
        vars.extend(set);
        let bytes: usize = vars.iter().map(|(name, value)| name.len() + value.len() + "=".len()).sum();
        if bytes > BYTES_MAX {
            return Err(format!("the environment would have {bytes} bytes, at most {BYTES_MAX} are possible"));
        }
        *slot = Arc::new(vars);
        Ok(())
    }
}

/// `NAME` as a shell takes it.
pub fn is_name(name: &str) -> bool {
    let mut chars = name.bytes();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// Names the first variable that a shell or the kernel would not take.
pub fn check(vars: Option<&Vars>) -> Result<(), String> {
    for (name, value) in vars.into_iter().flatten() {
        if !is_name(name) {
            return Err(format!("invalid environment variable name: {name:?}"));
        }
        if value.contains('\0') {
            return Err(format!("the value of environment variable {name} contains a NUL byte"));
        }
    }
    Ok(())
}

/// Adds what a login would have set and the image did not.
pub fn add_login_defaults(vars: &mut Vars, user: &User, home: &str) {
    let mut default = |name: &str, value: &str| {
        vars.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    };
    default("HOME", home);
    default("USER", &user.name);
    default("LOGNAME", &user.name);
    default("PATH", DEFAULT_PATH);
    if let Some(shell) = user.shell.as_deref().filter(|s| is_usable_shell(s)) {
        default("SHELL", shell);
    }
}

fn is_usable_shell(path: &str) -> bool {
    !path.ends_with("/nologin") && !path.ends_with("/false") && Path::new(path).is_file()
}

/// `NAME=value` words; entries with a NUL byte, which no process can have, are left out.
pub fn to_words(vars: &Vars) -> Vec<CString> {
    vars.iter().filter_map(|(k, v)| CString::new(format!("{k}={v}")).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_removes_names_then_values_then_sets() {
        let env = Env::new(Vars::from([
            ("A".into(), "1".into()),
            ("B".into(), "secret-x".into()),
            ("C".into(), "secret-y".into()),
        ]));
        let before = env.snapshot();
        env.update(UpdateEnvRequest {
            set: Some(Vars::from([("C".into(), "new".into())])),
            unset: Some(vec!["A".into()]),
            unset_value_prefix: Some("secret-".into()),
        })
        .unwrap();
        let much = Vars::from([("D".into(), "x".repeat(BYTES_MAX))]);
        assert!(env.update(UpdateEnvRequest { set: Some(much), ..UpdateEnvRequest::default() }).is_err());
        assert_eq!(*env.snapshot(), Vars::from([("C".into(), "new".into())]));
        assert_eq!(before.len(), 3, "a snapshot does not change");
    }

    #[test]
    fn names() {
        assert!(is_name("_A1") && !is_name("1A") && !is_name("") && !is_name("a-b") && !is_name("ä"));
        assert!(check(Some(&Vars::from([("a b".into(), String::new())]))).unwrap_err().contains("a b"));
    }
}
