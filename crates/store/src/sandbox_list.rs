//! Lists of sandboxes: filters, sorts, and pages by cursor or by number.

use crate::{
    Store, StoreError,
    db::Arg,
    sandbox::{SandboxRow, columns, sandbox_row},
};
use infield_api::state::SandboxState;
use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;

/// Which sandboxes of an organization. Empty lists and `None` filter nothing; conditions are joined by "and".
#[derive(Clone, Debug, Default)]
pub struct SandboxFilter {
    pub organization_id: String,
    /// Prefix, any case.
    pub id: Option<String>,
    /// Prefix, any case.
    pub name: Option<String>,
    /// All of these labels.
    pub labels: BTreeMap<String, String>,
    pub states: Vec<SandboxState>,
    pub snapshots: Vec<String>,
    pub targets: Vec<String>,
    pub ranges: Vec<Range>,
    pub public: Option<bool>,
    pub recoverable: Option<bool>,
    /// Also failed ones that are being deleted.
    pub include_errored_deleted: bool,
}

/// A numeric condition, both ends inclusive.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub column: RangeColumn,
    pub at_least: Option<i64>,
    pub at_most: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeColumn {
    Cpu,
    MemoryGib,
    DiskGib,
    Created,
    Activity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortColumn {
    Id,
    Name,
    State,
    Snapshot,
    Target,
    Cpu,
    MemoryGib,
    DiskGib,
    Activity,
    Created,
    Updated,
}

#[derive(Clone, Copy, Debug)]
pub struct Sort {
    pub column: SortColumn,
    pub descending: bool,
}

/// The last row a caller has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub value: SortValue,
    pub id: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortValue {
    Text(String),
    Int(i64),
}

/// Rows and whether more follow.
#[derive(Clone, Debug)]
pub struct Page {
    pub rows: Vec<SandboxRow>,
    pub more: bool,
}

impl Store {
    /// The rows after `after`, at most `limit`.
    pub async fn list_sandboxes(
        &self,
        filter: &SandboxFilter,
        sort: Sort,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Page, StoreError> {
        let mut sql = Sql::select(concat!("SELECT ", columns!(), " FROM sandboxes"));
        sql.filter(filter);
        if let Some(after) = after {
            let beyond = if sort.descending { "<" } else { ">" };
            let column = sort.column.sql();
            let value = match &after.value {
                SortValue::Text(text) => sql.arg(text.as_str()),
                SortValue::Int(int) => sql.arg(*int),
            };
            let id = sql.arg(after.id.as_str());
            sql.and(&format!("({column} {beyond} {value} OR ({column} = {value} AND id {beyond} {id}))"));
        }
        sql.order(sort);
        let limit_arg = sql.arg(limit + 1);
        sql.text.push_str(&format!(" LIMIT {limit_arg}"));
        let rows = self.db.fetch(AssertSqlSafe(sql.text), sql.args).await?;
        let more = rows.len() as i64 > limit;
        let rows = rows.iter().take(limit as usize).map(sandbox_row).collect::<Result<_, _>>()?;
        Ok(Page { rows, more })
    }

    /// Page number `page` (from 1) of `limit` rows, and how many rows there are in all.
    pub async fn page_sandboxes(
        &self,
        filter: &SandboxFilter,
        sort: Sort,
        page: i64,
        limit: i64,
    ) -> Result<(Vec<SandboxRow>, i64), StoreError> {
        let mut count = Sql::select("SELECT COUNT(*) FROM sandboxes");
        count.filter(filter);
        let counted = self.db.fetch(AssertSqlSafe(count.text), count.args).await?;
        let total = counted.first().map_or(Ok(0), |row| row.int(0))?;
        let mut sql = Sql::select(concat!("SELECT ", columns!(), " FROM sandboxes"));
        sql.filter(filter);
        sql.order(sort);
        let limit_arg = sql.arg(limit);
        let offset_arg = sql.arg((page - 1).saturating_mul(limit));
        sql.text.push_str(&format!(" LIMIT {limit_arg} OFFSET {offset_arg}"));
        let rows = self.db.fetch(AssertSqlSafe(sql.text), sql.args).await?;
        Ok((rows.iter().map(sandbox_row).collect::<Result<_, _>>()?, total))
    }
}

impl SortColumn {
    fn sql(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::State => "state",
            Self::Snapshot => "snapshot",
            Self::Target => "target",
            Self::Cpu => "cpu",
            Self::MemoryGib => "memory_gib",
            Self::DiskGib => "disk_gib",
            Self::Activity => "last_activity_at",
            Self::Created => "created_at",
            Self::Updated => "updated_at",
        }
    }

    /// What a cursor remembers of a row.
    pub fn value_of(self, row: &SandboxRow) -> SortValue {
        match self {
            Self::Id => SortValue::Text(row.id.to_string()),
            Self::Name => SortValue::Text(row.name.clone()),
            Self::State => SortValue::Text(row.state.as_str().to_owned()),
            Self::Snapshot => SortValue::Text(row.snapshot.clone()),
            Self::Target => SortValue::Text(row.target.clone()),
            Self::Cpu => SortValue::Int(row.cpu),
            Self::MemoryGib => SortValue::Int(row.memory_gib),
            Self::DiskGib => SortValue::Int(row.disk_gib),
            Self::Activity => SortValue::Int(row.activity_ms),
            Self::Created => SortValue::Int(row.created_ms),
            Self::Updated => SortValue::Int(row.updated_ms),
        }
    }
}

impl RangeColumn {
    fn sql(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::MemoryGib => "memory_gib",
            Self::DiskGib => "disk_gib",
            Self::Created => "created_at",
            Self::Activity => "last_activity_at",
        }
    }
}

/// A statement being put together: text from this file, values only as placeholders.
struct Sql {
    text: String,
    args: Vec<Arg>,
    conditions: usize,
}

impl Sql {
    fn select(text: &str) -> Self {
        Self { text: text.to_owned(), args: Vec::new(), conditions: 0 }
    }

    /// Adds a value; returns its placeholder.
    fn arg(&mut self, value: impl Into<Arg>) -> String {
        self.args.push(value.into());
        format!("${}", self.args.len())
    }

    fn and(&mut self, condition: &str) {
        self.text.push_str(if self.conditions == 0 { " WHERE " } else { " AND " });
        self.text.push_str(condition);
        self.conditions += 1;
    }

    fn one_of(&mut self, column: &str, values: impl Iterator<Item = String>) {
        let placeholders: Vec<String> = values.map(|value| self.arg(value)).collect();
        if !placeholders.is_empty() {
            self.and(&format!("{column} IN ({})", placeholders.join(", ")));
        }
    }

    fn prefix(&mut self, column: &str, prefix: Option<&str>) {
        if let Some(prefix) = prefix.filter(|p| !p.is_empty()) {
            let escaped = prefix.to_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            let pattern = self.arg(format!("{escaped}%"));
            self.and(&format!("lower({column}) LIKE {pattern} ESCAPE '\\'"));
        }
    }

    /// Labels are stored as compact JSON, where an unescaped `"key":"value"` after `{` or `,` can only be that entry.
    /// `replace` tells both databases' case-sensitive "contains".
    fn label(&mut self, key: &str, value: &str) {
        let entry = format!("{}:{}", crate::db::json_text(&key), crate::db::json_text(&value));
        let first = self.arg(format!("{{{entry}"));
        let later = self.arg(format!(",{entry}"));
        self.and(&format!("(replace(labels, {first}, '') <> labels OR replace(labels, {later}, '') <> labels)"));
    }

    fn filter(&mut self, filter: &SandboxFilter) {
        let organization = self.arg(filter.organization_id.as_str());
        self.and(&format!("organization_id = {organization}"));
        self.and("state <> 'destroyed'");
        if !filter.include_errored_deleted {
            self.and("NOT (state IN ('error', 'build_failed') AND desired_state = 'destroyed')");
        }
        self.prefix("id", filter.id.as_deref());
        self.prefix("name", filter.name.as_deref());
        for (key, value) in &filter.labels {
            self.label(key, value);
        }
        self.one_of("state", filter.states.iter().map(|state| state.as_str().to_owned()));
        self.one_of("snapshot", filter.snapshots.iter().cloned());
        self.one_of("target", filter.targets.iter().cloned());
        for range in &filter.ranges {
            if let Some(least) = range.at_least {
                let least = self.arg(least);
                self.and(&format!("{} >= {least}", range.column.sql()));
            }
            if let Some(most) = range.at_most {
                let most = self.arg(most);
                self.and(&format!("{} <= {most}", range.column.sql()));
            }
        }
        for (column, wanted) in [("public", filter.public), ("recoverable", filter.recoverable)] {
            if let Some(wanted) = wanted {
                let wanted = self.arg(wanted);
                self.and(&format!("{column} = {wanted}"));
            }
        }
    }

    fn order(&mut self, sort: Sort) {
        let direction = if sort.descending { "DESC" } else { "ASC" };
        self.text.push_str(&format!(" ORDER BY {} {direction}, id {direction}", sort.column.sql()));
    }
}
