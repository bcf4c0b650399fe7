//! `POST /process/code-run`: a program text in one of three languages, and the charts it shows.

mod charts;

use crate::body;
use crate::direct;
use crate::env;
use crate::error::{Answer, Failure};
use crate::execute::{Line, NoStart, Notice, Stdin, c_string, collect_output, detached, time_limit};
use crate::launch::{Child, Input, Launch, launch};
use crate::output::Output;
use crate::shell::{self, Family, Shell};
use crate::state::Shared;
use axum::extract::{Request, State};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use infield_api::toolbox::CodeRunRequest;
use serde_json::json;
use std::os::unix::ffi::OsStrExt;
use tokio::time::Instant;

/// Takes the script's own name out of `process.argv`, so that the caller's arguments begin at index 1.
const NODE_PREFIX: &str = "process.argv.splice(1, 1);\n";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Python,
    JavaScript,
    TypeScript,
}

/// A checked program.
struct Program {
    language: Language,
    source: String,
    argv: Vec<String>,
    line: Line,
    /// Whether the output may describe charts.
    draws: bool,
}

pub async fn code_run(State(agent): State<Shared>, request: Request) -> Answer {
    let request: CodeRunRequest = body::json(request).await?;
    let limit = time_limit(request.timeout);
    let program = Program::new(&agent, request)?;
    detached(async move {
        let deadline = limit.map(|l| Instant::now() + l);
        match program.start(&agent).await {
            Ok((child, notice)) => {
                let (output, code) = collect_output(child, notice, deadline).await?;
                Ok(if program.draws { with_charts(output, code) } else { output.into_answer(code) })
            }
            Err(no_start) => Ok(no_start.answer()),
        }
    })
    .await
}

impl Program {
    fn new(agent: &Shared, request: CodeRunRequest) -> Result<Self, Failure> {
        if request.code.is_empty() {
            return Err(Failure::bad_request("code is required"));
        }
        let language = match request.language.as_str() {
            "python" => Language::Python,
            "javascript" => Language::JavaScript,
            "typescript" => Language::TypeScript,
            "" => return Err(Failure::bad_request("language is required")),
            other => return Err(Failure::bad_request(format!("unsupported language: {other}"))),
        };
        let argv = request.argv.unwrap_or_default();
        if argv.iter().any(|a| a.contains('\0')) {
            return Err(Failure::bad_request("argv contains a NUL byte"));
        }
        let draws = language == Language::Python && charts::draws(&request.code);
        let source = match language {
            Language::Python if draws => charts::wrapped(&request.code),
            Language::Python => request.code,
            Language::JavaScript | Language::TypeScript => format!("{NODE_PREFIX}{}", request.code),
        };
        let line = Line::new(agent, shell_line(language, &source, &argv), None, request.envs.as_ref())?;
        Ok(Self { language, source, argv, line, draws })
    }

    /// Interpreters that read their program from standard input need no shell; anything unusual goes through it.
    async fn start(&self, agent: &Shared) -> Result<(Child, Notice), NoStart> {
        let shell = shell::find(&self.line.vars);
        let family = shell.as_ref().map_or(Family::Dash, Shell::family);
        let interpreter: &[&str] = match self.language {
            Language::Python => &["python3", "-u", "-"],
            Language::JavaScript => &["node", "-"],
            Language::TypeScript => &[],
        };
        if !interpreter.is_empty() {
            let words: Vec<&str> = interpreter.iter().copied().chain(self.argv.iter().map(String::as_str)).collect();
            if let Some(direct) = direct::prepare(&words, family, &agent.workdir, &self.line.vars) {
                let what = Launch {
                    program: c_string(direct.program.as_os_str().as_bytes()),
                    argv: direct.words.iter().map(|w| c_string(w.as_bytes())).collect(),
                    env: env::to_words(&direct.vars),
                    cwd: None,
                    input: Input::Text(self.source.clone().into_bytes()),
                    split: false,
                };
                if let Ok(child) = launch(agent, what).await {
                    return Ok((child, Notice::silent()));
                }
            }
        }
        self.line.start(agent, Stdin::Script, false).await
    }
}

/// The answer of a program that may have shown charts; `artifacts` stands only where there are some.
fn with_charts(output: Output, code: i32) -> axum::response::Response {
    let (text, charts) = charts::extract(&output.into_bytes());
    if charts.is_empty() {
        let mut output = Output::default();
        output.append(&text);
        return output.into_answer(code);
    }
    let result = String::from_utf8_lossy(&text);
    body::ok(&json!({ "exitCode": code, "result": result, "artifacts": { "charts": charts } }))
}

/// What the shell is given; it also produces the exact message when the interpreter is missing.
fn shell_line(language: Language, source: &str, argv: &[String]) -> String {
    let code = STANDARD.encode(source);
    let argv: String = argv.iter().map(|a| format!(" {}", quoted(a))).collect();
    match language {
        Language::Python => format!("echo {code} | base64 -d | python3 -u -{argv}\n"),
        Language::JavaScript => format!("echo {code} | base64 -d | node -{argv}\n"),
        // npx finds ts-node too, but takes a second to do so, and looks for an absent one in the registry.
        Language::TypeScript => format!(
            "f=/tmp/dtn_$$.ts\necho {code} | base64 -d > $f\n\
             if [ -x node_modules/.bin/ts-node ]; then t=node_modules/.bin/ts-node\n\
             elif command -v ts-node > /dev/null; then t=ts-node\n\
             else t='npx ts-node'\nfi\n\
             npm_config_loglevel=error $t -T --ignore-diagnostics 5107 -O '{{\"module\":\"CommonJS\"}}' $f{argv} \
             < /dev/null\nc=$?\nrm -f $f\nexit $c\n"
        ),
    }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
