//! Users and groups from the image's own `/etc/passwd` and `/etc/group`, read by hand: the C library's lookup would load
//! the image's name service modules into this static program.

use crate::small_file;
use std::path::Path;

/// More than any image needs; the rest of a larger file is not looked at.
const ACCOUNT_FILE_BYTES_MAX: u64 = 4 << 20;

/// The identity that commands run under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Login name; the number as text where the image has none.
    pub name: String,
    pub home: Option<String>,
    pub shell: Option<String>,
}

/// The two files, as far as they could be read.
#[derive(Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

impl Accounts {
    pub fn of_image() -> Self {
        let text = |path: &str| {
            let bytes = small_file::read(Path::new(path), ACCOUNT_FILE_BYTES_MAX).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Self { passwd: text("/etc/passwd"), group: text("/etc/group") }
    }

    fn users(&self) -> impl Iterator<Item = PasswdLine<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut field = line.split(':');
            let (name, _password) = (field.next()?, field.next()?);
            let (uid, gid) = (field.next()?.trim().parse().ok()?, field.next()?.trim().parse().ok()?);
            let (_gecos, home, shell) = (field.next(), field.next().unwrap_or(""), field.next().unwrap_or(""));
            Some(PasswdLine { name, uid, gid, home, shell })
        })
    }

    /// Name, number and members of every group.
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut field = line.split(':');
            let (name, _password) = (field.next()?, field.next()?);
            let gid = field.next()?.trim().parse().ok()?;
            Some((name, gid, field.next().unwrap_or("")))
        })
    }

    pub fn uid_of(&self, name: &str) -> Option<u32> {
        name.parse().ok().or_else(|| self.users().find(|u| u.name == name).map(|u| u.uid))
    }

    pub fn gid_of(&self, name: &str) -> Option<u32> {
        name.parse().ok().or_else(|| self.groups().find(|g| g.0 == name).map(|g| g.1))
    }

    fn supplementary(&self, name: &str, primary: u32) -> Vec<u32> {
        let mut gids: Vec<u32> = self
            .groups()
            .filter(|(_, gid, members)| *gid != primary && members.split(',').any(|m| m.trim() == name))
            .map(|g| g.1)
            .collect();
        gids.sort_unstable();
        gids.dedup();
        gids
    }

    /// `user`, `user:group`, numbers or names. A number needs no entry, a name does. An explicit group stands alone.
    pub fn resolve(&self, wanted: &str) -> Result<User, String> {
        let (user, group) = match wanted.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
            None => (wanted, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let number: Option<u32> = user.parse().ok();
        let entry = self.users().find(|u| u.name == user).or_else(|| self.users().find(|u| Some(u.uid) == number));
        let mut found = match (entry, number) {
            (Some(u), _) => User {
                uid: u.uid,
                gid: u.gid,
                groups: self.supplementary(u.name, u.gid),
                name: u.name.to_owned(),
                home: Some(u.home.to_owned()).filter(|h| h.starts_with('/')),
                shell: Some(u.shell.to_owned()).filter(|s| s.starts_with('/')),
            },
            (None, Some(uid)) => {
                let name = if uid == 0 { "root".to_owned() } else { uid.to_string() };
                User { uid, gid: 0, groups: Vec::new(), name, home: None, shell: None }
            }
            (None, None) => {
                return Err(format!(
                    "this image has no user {user:?} in /etc/passwd; create the sandbox with a user that the image has, \
                     or with a number"
                ));
            }
        };
        if let Some(group) = group {
            found.gid = self.gid_of(group).ok_or_else(|| {
                format!("this image has no group {group:?} in /etc/group; use a group that the image has, or a number")
            })?;
            found.groups.clear();
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/bash\nbroken\ndaytona:x:1000:1001::/home/daytona:/bin/zsh\n".into(),
            group: "root:x:0:\nsudo:x:27:other,daytona\ndaytona:x:1001:\nextra:x:5:daytona\n".into(),
        }
    }

    #[test]
    fn names_numbers_and_groups() {
        let user = accounts().resolve("daytona").unwrap();
        assert_eq!((user.uid, user.gid, user.groups.clone()), (1000, 1001, vec![5, 27]));
        assert_eq!((user.home.as_deref(), user.shell.as_deref()), (Some("/home/daytona"), Some("/bin/zsh")));
        assert_eq!(accounts().resolve("1000").unwrap(), user);
        let user = accounts().resolve("1000:sudo").unwrap();
        assert_eq!((user.uid, user.gid, user.groups), (1000, 27, vec![]));
        let user = accounts().resolve("4242:7").unwrap();
        assert_eq!((user.uid, user.gid, user.name.as_str(), user.home), (4242, 7, "4242", None));
        assert_eq!(accounts().resolve("").unwrap().name, "root");
    }

    #[test]
    fn an_image_without_accounts_knows_numbers_only() {
        let none = Accounts::default();
        assert_eq!(none.resolve("0").unwrap().name, "root");
        assert!(none.resolve("daytona").unwrap_err().contains("no user \"daytona\""));
        assert!(accounts().resolve("root:nope").unwrap_err().contains("no group \"nope\""));
    }
}
