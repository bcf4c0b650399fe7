//! Saying things: results for people or as JSON on standard output, progress and failures on standard error.

use crate::errors::Failure;
use indicatif::{ProgressBar, ProgressStyle};
use std::{fmt::Write as _, io::Write as _, time::Duration};

/// What a command has to say.
pub struct Said {
    pub text: String,
    pub json: serde_json::Value,
}

/// Prints a result and gives the exit code.
pub fn finish(json: bool, result: Result<Said, Failure>) -> u8 {
    match result {
        Ok(said) => {
            let text = if json { said.json.to_string() } else { said.text };
            print_line(&text);
            0
        }
        Err(failure) => {
            report(json, &failure);
            failure.row.exit_code
        }
    }
}

pub fn report(json: bool, failure: &Failure) {
    if json {
        print_line(&failure.to_json().to_string());
    } else {
        eprintln!("{failure}");
    }
}

/// A reader that went away (`| head`) is no reason to panic.
pub fn print_line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
}

/// A spinner on the terminal; silent where standard error is not one.
pub struct Progress(ProgressBar);

impl Progress {
    pub fn start(message: impl Into<String>) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_message(message.into());
        bar.enable_steady_tick(Duration::from_millis(80));
        Self(bar)
    }

    pub fn say(&self, message: impl Into<String>) {
        self.0.set_message(message.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Columns as wide as their widest cell.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `1.2 s`, `34 ms`.
pub fn took(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 1.0 => format!("{:.0} ms", s * 1000.0),
        s if s < 60.0 => format!("{s:.1} s"),
        s => format!("{:.0} min {:.0} s", (s / 60.0).floor(), s % 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "bb".into()], vec!["ccc".into(), String::new()]];
        assert_eq!(table(&rows), "a    bb\nccc\n");
    }

    #[test]
    fn durations() {
        assert_eq!(took(Duration::from_millis(7)), "7 ms");
        assert_eq!(took(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(took(Duration::from_secs(125)), "2 min 5 s");
    }
}
