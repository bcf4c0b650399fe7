//! What the relay answers by itself: the JSON error body of the contract with source `DAYTONA_PROXY`.

use crate::{body::GatewayBody, page, pool::PoolError};
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use infield_api::{SandboxId, directory::DirectoryError};
use time::{OffsetDateTime, macros::format_description};

/// What an error body repeats of the request. Never the query: a credential can stand there.
#[derive(Clone)]
pub struct Context {
    method: String,
    path: String,
}

/// A request that does not reach an agent.
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    context: Context,
}

impl Context {
    pub fn of<B>(request: &Request<B>) -> Self {
        Self { method: request.method().to_string(), path: request.uri().path().to_owned() }
    }

    pub fn unauthorized(&self) -> Refusal {
        let message = "invalid or missing credentials: send the API key as \"Authorization: Bearer <key>\"";
        self.refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message.into())
    }

    pub fn incomplete(&self, what: &str) -> Refusal {
        self.refuse(StatusCode::BAD_REQUEST, "BAD_REQUEST", format!("{what} is required"))
    }

    pub fn not_found(&self, message: &str) -> Refusal {
        self.refuse(StatusCode::NOT_FOUND, "NOT_FOUND", message.into())
    }

    pub fn not_started(&self, sandbox: &str, state: &str) -> Refusal {
        let message = format!(
            "sandbox {sandbox} is not started (state {state}); start it with POST /api/sandbox/{sandbox}/start"
        );
        self.refuse(StatusCode::BAD_REQUEST, "SANDBOX_NOT_STARTED", message)
    }

    /// The directory's verdict, as an answer.
    pub fn denied(&self, verdict: DirectoryError, sandbox: &str) -> Refusal {
        match verdict {
            DirectoryError::Incomplete(what) => self.incomplete(what),
            DirectoryError::NotFound => self.not_found(&format!("sandbox {sandbox} not found")),
            DirectoryError::Unavailable(why) => self.unavailable(&why),
            DirectoryError::Unauthorized => self.unauthorized(),
        }
    }

    pub fn expired_link(&self) -> Refusal {
        let message = "this link has expired or was revoked; ask whoever sent it for a new one";
        self.refuse(StatusCode::FORBIDDEN, "FORBIDDEN", message.into())
    }

    pub fn not_built(&self, message: &str) -> Refusal {
        self.refuse(StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message.into())
    }

    pub fn unavailable(&self, why: &str) -> Refusal {
        let message = format!("cannot look up the sandbox now ({why}); try again in a moment");
        self.refuse(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
    }

    pub fn bad_gateway(&self, sandbox: SandboxId, error: &PoolError) -> Refusal {
        tracing::debug!(%sandbox, %error, "toolbox request failed");
        let message =
            format!("the toolbox of sandbox {sandbox} did not answer: {error}; try again or restart the sandbox");
        self.refuse(StatusCode::BAD_GATEWAY, "BAD_GATEWAY", message)
    }

    pub fn uninvited_upgrade(&self, sandbox: SandboxId) -> Refusal {
        let message = format!("the toolbox of sandbox {sandbox} switched protocols without being asked");
        self.refuse(StatusCode::BAD_GATEWAY, "BAD_GATEWAY", message)
    }

    fn refuse(&self, status: StatusCode, code: &'static str, message: String) -> Refusal {
        Refusal { status, code, message, context: self.clone() }
    }
}

impl Refusal {
    pub fn into_page(self) -> Response<GatewayBody> {
        page::page(self.status, &self.message)
    }

    pub fn into_response(self) -> Response<GatewayBody> {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        let body = serde_json::json!({
            "statusCode": self.status.as_u16(),
            "error": self.status.canonical_reason().unwrap_or("Error"),
            "message": self.message,
            "code": self.code,
            "source": "DAYTONA_PROXY",
            "timestamp": OffsetDateTime::now_utc().format(&format).unwrap_or_default(),
            "path": self.context.path,
            "method": self.context.method,
        });
        let mut response = Response::new(GatewayBody::text(body.to_string()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
