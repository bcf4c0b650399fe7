//! The toolbox inside one sandbox: commands, files, git.

use crate::{
    api::encode,
    dto::{Execute, Executed, FileInfo, GitBranches, GitCredentials, GitStatus},
    error::ClientError,
    exec::ExecStream,
    multipart::{self, Upload},
    transport::{Answer, Endpoint, NO_BODY},
};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt};

#[derive(Clone)]
pub struct Toolbox {
    endpoint: Endpoint,
    base: String,
}

/// A repository to clone.
pub struct Clone<'a> {
    pub url: &'a str,
    pub path: &'a str,
    pub branch: Option<&'a str>,
    pub credentials: Option<&'a GitCredentials>,
}

/// Who a commit is by, and what it says.
pub struct Commit<'a> {
    pub message: &'a str,
    pub author: &'a str,
    pub email: &'a str,
}

impl Toolbox {
    pub(crate) fn new(endpoint: Endpoint, proxy: &str, sandbox: &str) -> Result<Self, ClientError> {
        if proxy.is_empty() {
            return Err(ClientError::Invalid(format!("the server gave no toolbox address for sandbox {sandbox}")));
        }
        Ok(Self { endpoint, base: format!("{}/{}", proxy.trim_end_matches('/'), encode(sandbox)) })
    }

    pub async fn home_dir(&self) -> Result<String, ClientError> {
        let answer: Value = self.get("/user-home-dir").await?;
        match answer["dir"].as_str() {
            Some(dir) => Ok(dir.to_owned()),
            None => Err(ClientError::Unexpected { url: self.url("/user-home-dir"), why: "no dir in it".into() }),
        }
    }

    pub async fn execute(&self, command: &Execute) -> Result<Executed, ClientError> {
        let url = self.url("/process/execute");
        Ok(self.endpoint.json(Method::POST, &url, Some(command)).await?.body)
    }

    /// Starts a command whose output streams. `Ok(None)` when the server does not know how.
    pub async fn execute_stream(&self, command: &Execute, stdin: bool) -> Result<Option<ExecStream>, ClientError> {
        match ExecStream::open(&self.endpoint, &self.url("/process/execute/stream"), command, stdin).await {
            Ok(stream) => Ok(Some(stream)),
            Err(e) if e.status().is_some_and(is_unknown_route) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub async fn git_clone(&self, clone: &Clone<'_>) -> Result<(), ClientError> {
        let body =
            with_credentials(json!({"url": clone.url, "path": clone.path, "branch": clone.branch}), clone.credentials);
        self.post("/git/clone", &body).await
    }

    pub async fn git_status(&self, path: &str) -> Result<GitStatus, ClientError> {
        self.get(&format!("/git/status?path={}", encode(path))).await
    }

    pub async fn git_branches(&self, path: &str) -> Result<GitBranches, ClientError> {
        self.get(&format!("/git/branches?path={}", encode(path))).await
    }

    /// Makes the branch at HEAD and checks it out.
    pub async fn git_create_branch(&self, path: &str, name: &str) -> Result<(), ClientError> {
        self.post("/git/branches", &json!({"path": path, "name": name})).await
    }

    /// Stages everything in the working tree, deletions too.
    pub async fn git_add_all(&self, path: &str) -> Result<(), ClientError> {
        self.post("/git/add", &json!({"path": path, "files": ["."]})).await
    }

    /// Returns the new commit's hash.
    pub async fn git_commit(&self, path: &str, commit: &Commit<'_>) -> Result<String, ClientError> {
        let body = json!({
            "path": path, "message": commit.message, "author": commit.author, "email": commit.email, "allow_empty": false,
        });
        let url = self.url("/git/commit");
        let answer: Answer<Value> = self.endpoint.json(Method::POST, &url, Some(&body)).await?;
        Ok(answer.body["hash"].as_str().unwrap_or_default().to_owned())
    }

    pub async fn git_push(
        &self,
        path: &str,
        branch: &str,
        credentials: Option<&GitCredentials>,
    ) -> Result<(), ClientError> {
        let body = with_credentials(json!({"path": path, "branch": branch, "remote": "origin"}), credentials);
        self.post("/git/push", &body).await
    }

    pub async fn list_files(&self, path: &str) -> Result<Vec<FileInfo>, ClientError> {
        self.get(&format!("/files?path={}", encode(path))).await
    }

    pub async fn create_folder(&self, path: &str) -> Result<(), ClientError> {
        let url = self.url(&format!("/files/folder?path={}&mode=0755", encode(path)));
        self.endpoint.no_answer(Method::POST, &url, NO_BODY).await
    }

    /// Puts files into the sandbox in one request; missing folders are made.
    pub async fn upload(&self, files: Vec<Upload>) -> Result<(), ClientError> {
        let url = self.url("/files/bulk-upload");
        let (content_type, body) = multipart::encode(files).await?;
        let response = self.endpoint.send(Method::POST, &url, Some(&content_type), body).await?;
        crate::transport::collect(&url, response.into_body(), 1 << 20).await.map(drop)
    }

    /// Streams a file out of the sandbox; returns its length.
    pub async fn download(&self, path: &str, to: &mut (impl AsyncWrite + Unpin)) -> Result<u64, ClientError> {
        let url = self.url(&format!("/files/download?path={}", encode(path)));
        let response = self.endpoint.send(Method::GET, &url, None, crate::transport::full("")).await?;
        let mut body = response.into_body();
        let mut bytes = 0;
        let broken =
            |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Broken { url: url.clone(), source };
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|e| broken(e.into()))?.into_data() else { continue };
            bytes += data.len() as u64;
            to.write_all(&data).await.map_err(|e| broken(e.into()))?;
        }
        to.flush().await.map_err(|e| broken(e.into()))?;
        Ok(bytes)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        Ok(self.endpoint.json(Method::GET, &self.url(path), NO_BODY).await?.body)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(), ClientError> {
        self.endpoint.no_answer(Method::POST, &self.url(path), Some(body)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

pub use crate::multipart::Content;
pub use crate::multipart::Upload as UploadFile;

/// Servers word it differently; where it means something else, the plain request that follows says so.
fn is_unknown_route(status: StatusCode) -> bool {
    status.is_success() || matches!(status.as_u16(), 400 | 404 | 405 | 426 | 501)
}

fn with_credentials(mut body: Value, credentials: Option<&GitCredentials>) -> Value {
    if let Some(credentials) = credentials {
        body["username"] = json!(credentials.username);
        body["password"] = json!(credentials.password);
    }
    if let Value::Object(fields) = &mut body {
        fields.retain(|_, value| !value.is_null());
    }
    body
}
