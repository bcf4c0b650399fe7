//! What a person is told when something fails: one table of title, cause and fix, and the exit codes.
//!
//! The first five rows are the troubleshooting table of the tool's own documentation, word for word; a test compares.

use infield_client::ClientError;
use serde::Serialize;
use std::fmt;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub title: &'static str,
    pub cause: &'static str,
    pub fix: &'static str,
    pub exit_code: u8,
}

pub const KEY_NOT_SET: Row = Row {
    title: "DAYTONA_API_KEY not set",
    cause: "No API key in env",
    fix: "Get key from https://app.daytona.io/dashboard/keys",
    exit_code: 3,
};
pub const CREATION_FAILED: Row = Row {
    title: "sandbox creation failed",
    cause: "Network/quota issue",
    fix: "Wait 30s, retry; check quota on dashboard",
    exit_code: 5,
};
pub const EXEC_FAILED: Row = Row {
    title: "exec exit code != 0",
    cause: "Command failed in sandbox",
    fix: "Read output, fix command, retry",
    exit_code: 1,
};
pub const SYNC_CONFLICT: Row = Row {
    title: "sync conflict",
    cause: "Branch diverged from remote",
    fix: "Run git pull --rebase inside sandbox first",
    exit_code: 6,
};
pub const CONNECTION_REFUSED: Row = Row {
    title: "connection refused",
    cause: "API endpoint wrong",
    fix: "Verify DAYTONA_API_URL (default: https://app.daytona.io/api)",
    exit_code: 4,
};
pub const KEY_REFUSED: Row = Row {
    title: "API key not accepted",
    cause: "The key is wrong, expired or lacks a permission",
    fix: "Check DAYTONA_API_KEY, or make a new key",
    exit_code: 3,
};
pub const NO_SUCH_SANDBOX: Row = Row {
    title: "no such sandbox",
    cause: "No sandbox with that id or name belongs to this key",
    fix: "Run the list command and take an id from there",
    exit_code: 7,
};
pub const LOCAL_SERVER: Row = Row {
    title: "no local server",
    cause: "The local server cannot be reached or started",
    fix: "Run `sudo infield setup` and `sudo infield serve`, or set DAYTONA_API_KEY to use a hosted server",
    exit_code: 4,
};
pub const CLONE_FAILED: Row = Row {
    title: "clone failed",
    cause: "The repository could not be cloned into the sandbox",
    fix: "Check --repo and --branch; for a private repository set GIT_USERNAME and GIT_TOKEN",
    exit_code: 8,
};
pub const LOCAL_GIT: Row = Row {
    title: "local repository not usable",
    cause: "git on this machine could not do what was needed",
    fix: "Look at the detail, mend it, and run the same command again; nothing was lost",
    exit_code: 8,
};
pub const USAGE: Row = Row {
    title: "cannot do that",
    cause: "The command and the sandbox do not fit together",
    fix: "See the detail",
    exit_code: 2,
};
pub const SERVER_ERROR: Row = Row {
    title: "the server refused",
    cause: "See the detail",
    fix: "Mend what the detail names and retry",
    exit_code: 1,
};

/// What `exec` exits with when the tool itself failed, so that a script can tell it from the command's own code.
pub const EXEC_TOOL_FAILED: u8 = 125;

pub const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the server refused
  2    wrong arguments, or they do not fit the sandbox
  3    no API key (DAYTONA_API_KEY not set), or it is not accepted
  4    connection refused, or no local server
  5    sandbox creation failed
  6    sync conflict: the branch diverged from the remote
  7    no such sandbox
  8    the repository could not be cloned or read
  exec exits with the code of the command; 125 when exec itself failed, 130 after three Ctrl-C";

/// A failure on its way to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub row: Row,
    /// What exactly happened, in the words of whoever noticed.
    pub detail: Option<String>,
    /// The fix for this very case, when it says more than the row's.
    pub next: Option<String>,
}

#[derive(Serialize)]
struct Json<'a> {
    error: &'a str,
    cause: &'a str,
    fix: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

impl Failure {
    pub fn new(row: Row) -> Self {
        Self { row, detail: None, next: None }
    }

    pub fn detailed(row: Row, detail: impl Into<String>) -> Self {
        Self { row, detail: Some(detail.into()), next: None }
    }

    /// Adds the command that mends this very case.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    pub fn no_such_sandbox(id: &str) -> Self {
        Self::detailed(NO_SUCH_SANDBOX, format!("no sandbox {id}"))
    }

    /// A failure of the network or the key is that, whatever was being done; everything else is `row`.
    pub fn during(row: Row, error: ClientError) -> Self {
        match Self::from(error) {
            failure if failure.row == SERVER_ERROR => Self { row, ..failure },
            failure => failure,
        }
    }

    pub fn to_json(&self) -> serde_json::Value {
        let json = Json {
            error: self.row.title,
            cause: self.row.cause,
            fix: self.row.fix,
            detail: self.detail.as_deref(),
            next: self.next.as_deref(),
        };
        serde_json::to_value(json).unwrap_or_default()
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Refused { .. } => Self::detailed(CONNECTION_REFUSED, chain(&error)),
            ClientError::Http { status, .. } if matches!(status.as_u16(), 401 | 403) => {
                Self::detailed(KEY_REFUSED, error.to_string())
            }
            ClientError::Invalid(_) => Self::detailed(USAGE, error.to_string()),
            _ => Self::detailed(SERVER_ERROR, chain(&error)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.row.title)?;
        if let Some(detail) = &self.detail {
            writeln!(f, "  detail: {detail}")?;
        }
        writeln!(f, "  cause:  {}", self.row.cause)?;
        write!(f, "  fix:    {}", self.row.fix)?;
        match &self.next {
            Some(next) => write!(f, "\n  next:   {next}"),
            None => Ok(()),
        }
    }
}

/// An error and its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The troubleshooting table of the tool's documentation.
    const DOCUMENTED: &str = "
| `DAYTONA_API_KEY not set` | No API key in env | Get key from https://app.daytona.io/dashboard/keys |
| `sandbox creation failed` | Network/quota issue | Wait 30s, retry; check quota on dashboard |
| `exec exit code != 0` | Command failed in sandbox | Read output, fix command, retry |
| `sync conflict` | Branch diverged from remote | Run `git pull --rebase` inside sandbox first |
| `connection refused` | API endpoint wrong | Verify `DAYTONA_API_URL` (default: `https://app.daytona.io/api`) |";

    #[test]
    fn the_five_documented_cases_word_for_word() {
        let rows = [KEY_NOT_SET, CREATION_FAILED, EXEC_FAILED, SYNC_CONFLICT, CONNECTION_REFUSED];
        let documented: Vec<Vec<String>> = DOCUMENTED
            .trim()
            .lines()
            .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect())
            .collect();
        assert_eq!(documented.len(), rows.len());
        for (row, cells) in rows.iter().zip(documented) {
            assert_eq!([row.title, row.cause, row.fix], [&cells[0], &cells[1], &cells[2]].map(String::as_str));
        }
    }

    #[test]
    fn every_failure_names_cause_and_fix() {
        let text = Failure::detailed(SYNC_CONFLICT, "rejected").next("do this").to_string();
        assert_eq!(
            text,
            "error: sync conflict\n  detail: rejected\n  cause:  Branch diverged from remote\n  \
             fix:    Run git pull --rebase inside sandbox first\n  next:   do this"
        );
    }

    #[test]
    fn exit_codes_in_the_help_are_the_ones_used() {
        let rows = [KEY_NOT_SET, CREATION_FAILED, SYNC_CONFLICT, CONNECTION_REFUSED, NO_SUCH_SANDBOX, CLONE_FAILED];
        for row in rows {
            assert!(EXIT_CODES.contains(&format!("\n  {}    ", row.exit_code)), "{}", row.title);
        }
    }

    #[test]
    fn network_and_key_failures_keep_their_row() {
        let refused = || ClientError::Refused { url: "http://h".into(), source: "os error 111".into() };
        assert_eq!(Failure::during(CREATION_FAILED, refused()).row, CONNECTION_REFUSED);
        let quota = ClientError::Http {
            status: "400".parse().expect("status"),
            code: None,
            message: "total CPU limit exceeded".into(),
        };
        let failure = Failure::during(CREATION_FAILED, quota);
        assert_eq!((failure.row, failure.detail.as_deref()), (CREATION_FAILED, Some("total CPU limit exceeded")));
    }
}
