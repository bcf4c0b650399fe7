//! Lists of sandboxes, by cursor and (for older clients) by page.

use super::{
    extract::{BaseUrl, Query},
    view,
};
use crate::{
    app::App,
    auth::Caller,
    error::{ApiError, ApiResult},
};
use axum::{Json, extract::State};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use infield_api::{
    error::ErrorBody,
    sandbox::{ListSandboxesResponse, PaginatedSandboxes},
    state::SandboxState,
};
use infield_store::{Cursor, Range, RangeColumn, SandboxFilter, Sort, SortColumn, SortValue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const LIMIT_DEFAULT: i64 = 100;
const LIMIT_MAX: i64 = 200;

/// Sandboxes of the organization, page by page.
#[utoipa::path(get, path = "/sandbox", operation_id = "listSandboxes", tag = "sandbox",
    params(
        ("cursor" = Option<String>, Query), ("limit" = Option<i64>, Query, minimum = 1, maximum = 200),
        ("id" = Option<String>, Query), ("name" = Option<String>, Query), ("labels" = Option<String>, Query),
        ("includeErroredDeleted" = Option<bool>, Query), ("includeWarm" = Option<bool>, Query),
        ("states" = Option<Vec<SandboxState>>, Query), ("snapshots" = Option<Vec<String>>, Query),
        ("regionIds" = Option<Vec<String>>, Query), ("sandboxClasses" = Option<Vec<String>>, Query),
        ("minCpu" = Option<i64>, Query), ("maxCpu" = Option<i64>, Query), ("minGpu" = Option<i64>, Query),
        ("maxGpu" = Option<i64>, Query), ("minMemoryGiB" = Option<i64>, Query),
        ("maxMemoryGiB" = Option<i64>, Query), ("minDiskGiB" = Option<i64>, Query),
        ("maxDiskGiB" = Option<i64>, Query), ("isPublic" = Option<bool>, Query),
        ("isRecoverable" = Option<bool>, Query), ("createdAtAfter" = Option<String>, Query),
        ("createdAtBefore" = Option<String>, Query), ("lastEventAfter" = Option<String>, Query),
        ("lastEventBefore" = Option<String>, Query), ("autoDestroyAtAfter" = Option<String>, Query),
        ("autoDestroyAtBefore" = Option<String>, Query), ("sort" = Option<String>, Query),
        ("order" = Option<String>, Query)),
    responses((status = 200, body = ListSandboxesResponse), (status = 400, body = ErrorBody)))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    query: Query,
) -> ApiResult<Json<ListSandboxesResponse>> {
    let limit = query.int_within("limit", LIMIT_DEFAULT, LIMIT_MAX)?;
    let sort = sort_of(&query, SortColumn::Activity, &LIST_SORTS)?;
    let after = query.text("cursor").map(|text| read_cursor(text, sort.column)).transpose()?;
    let Some(filter) = filter_of(&caller, &query, "regionIds")? else {
        return Ok(Json(ListSandboxesResponse { items: Vec::new(), next_cursor: None }));
    };
    let page = app.store.list_sandboxes(&filter, sort, after.as_ref(), limit).await?;
    let next_cursor = page.rows.last().filter(|_| page.more).map(|row| write_cursor(sort.column, row));
    let items = page.rows.into_iter().map(|row| view::sandbox_item(row, &base)).collect();
    Ok(Json(ListSandboxesResponse { items, next_cursor }))
}

/// Sandboxes of the organization by page number, for older clients.
#[utoipa::path(get, path = "/sandbox/paginated", operation_id = "listSandboxesPaginated_deprecated", tag = "sandbox",
    params(
        ("page" = Option<i64>, Query, minimum = 1), ("limit" = Option<i64>, Query, minimum = 1, maximum = 200),
        ("id" = Option<String>, Query), ("name" = Option<String>, Query), ("labels" = Option<String>, Query),
        ("includeErroredDeleted" = Option<bool>, Query), ("states" = Option<Vec<SandboxState>>, Query),
        ("snapshots" = Option<Vec<String>>, Query), ("regions" = Option<Vec<String>>, Query),
        ("minCpu" = Option<i64>, Query), ("maxCpu" = Option<i64>, Query), ("minMemoryGiB" = Option<i64>, Query),
        ("maxMemoryGiB" = Option<i64>, Query), ("minDiskGiB" = Option<i64>, Query),
        ("maxDiskGiB" = Option<i64>, Query), ("lastEventAfter" = Option<String>, Query),
        ("lastEventBefore" = Option<String>, Query), ("sort" = Option<String>, Query),
        ("order" = Option<String>, Query)),
    responses((status = 200, body = PaginatedSandboxes), (status = 400, body = ErrorBody)))]
pub async fn paginated(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    query: Query,
) -> ApiResult<Json<PaginatedSandboxes>> {
    let limit = query.int_within("limit", LIMIT_DEFAULT, LIMIT_MAX)?;
    let page = query.int("page", 1)?.unwrap_or(1);
    let sort = sort_of(&query, SortColumn::Created, &PAGE_SORTS)?;
    let Some(filter) = filter_of(&caller, &query, "regions")? else {
        return Ok(Json(PaginatedSandboxes { items: Vec::new(), total: 0, page, total_pages: 0 }));
    };
    let (rows, total) = app.store.page_sandboxes(&filter, sort, page, limit).await?;
    let items = rows.into_iter().map(|row| view::sandbox(row, &base)).collect();
    Ok(Json(PaginatedSandboxes {
        items,
        total,
        page,
        total_pages: total.div_euclid(limit) + i64::from(total % limit > 0),
    }))
}

const LIST_SORTS: [(&str, SortColumn); 6] = [
    ("name", SortColumn::Name),
    ("cpu", SortColumn::Cpu),
    ("memoryGib", SortColumn::MemoryGib),
    ("diskGib", SortColumn::DiskGib),
    ("lastActivityAt", SortColumn::Activity),
    ("createdAt", SortColumn::Created),
];

const PAGE_SORTS: [(&str, SortColumn); 8] = [
    ("id", SortColumn::Id),
    ("name", SortColumn::Name),
    ("state", SortColumn::State),
    ("snapshot", SortColumn::Snapshot),
    ("region", SortColumn::Target),
    ("updatedAt", SortColumn::Updated),
    ("createdAt", SortColumn::Created),
    ("lastActivityAt", SortColumn::Activity),
];

fn sort_of(query: &Query, default: SortColumn, names: &[(&str, SortColumn)]) -> ApiResult<Sort> {
    let column = match query.text("sort") {
        None => default,
        Some(word) => names.iter().find(|(name, _)| *name == word).map(|(_, column)| *column).ok_or_else(|| {
            let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            ApiError::bad_request(format!("sort must be one of {}", known.join(", ")))
        })?,
    };
    Ok(Sort { column, descending: descending(query)? })
}

/// `order`, descending unless told otherwise.
pub fn descending(query: &Query) -> ApiResult<bool> {
    match query.text("order") {
        None | Some("desc") => Ok(true),
        Some("asc") => Ok(false),
        Some(_) => Err(ApiError::bad_request("order must be asc or desc")),
    }
}

/// `None` when the conditions ask for what no sandbox here can be.
fn filter_of(caller: &Caller, query: &Query, regions: &str) -> ApiResult<Option<SandboxFilter>> {
    let mut states = Vec::new();
    for word in query.list("states") {
        match SandboxState::parse(word) {
            Some(SandboxState::Destroyed) | None => {
                return Err(ApiError::bad_request(format!("states must not hold {word:?}")));
            }
            Some(state) => states.push(state),
        }
    }
    let filter = SandboxFilter {
        organization_id: caller.organization().to_owned(),
        id: query.text("id").map(str::to_owned),
        name: query.text("name").map(str::to_owned),
        labels: labels_of(query)?,
        states,
        snapshots: query.list("snapshots").into_iter().map(str::to_owned).collect(),
        targets: query.list(regions).into_iter().map(str::to_owned).collect(),
        ranges: ranges_of(query)?,
        public: query.flag("isPublic")?,
        recoverable: query.flag("isRecoverable")?,
        include_errored_deleted: query.flag("includeErroredDeleted")?.unwrap_or(false),
    };
    query.flag("includeWarm")?;
    let classes = query.list("sandboxClasses");
    let no_class = !classes.is_empty() && !classes.contains(&"container");
    let no_gpu = query.int("minGpu", 0)?.unwrap_or(0) > 0;
    query.int("maxGpu", 0)?;
    let dated = query.time("autoDestroyAtAfter")?.or(query.time("autoDestroyAtBefore")?).is_some();
    Ok((!no_class && !no_gpu && !dated).then_some(filter))
}

fn labels_of(query: &Query) -> ApiResult<BTreeMap<String, String>> {
    let Some(text) = query.text("labels") else { return Ok(BTreeMap::new()) };
    serde_json::from_str(text).map_err(|_| ApiError::bad_request("labels must be a JSON object of strings"))
}

fn ranges_of(query: &Query) -> ApiResult<Vec<Range>> {
    let mut ranges = Vec::new();
    let counts = [
        (RangeColumn::Cpu, "minCpu", "maxCpu"),
        (RangeColumn::MemoryGib, "minMemoryGiB", "maxMemoryGiB"),
        (RangeColumn::DiskGib, "minDiskGiB", "maxDiskGiB"),
    ];
    for (column, least, most) in counts {
        ranges.push(Range { column, at_least: query.int(least, 1)?, at_most: query.int(most, 1)? });
    }
    let times = [
        (RangeColumn::Created, "createdAtAfter", "createdAtBefore"),
        (RangeColumn::Activity, "lastEventAfter", "lastEventBefore"),
    ];
    for (column, after, before) in times {
        ranges.push(Range { column, at_least: query.time(after)?, at_most: query.time(before)? });
    }
    Ok(ranges)
}

/// What an opaque cursor holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCursor {
    sort_value: serde_json::Value,
    id: String,
}

fn write_cursor(column: SortColumn, row: &infield_store::SandboxRow) -> String {
    let sort_value = match column.value_of(row) {
        SortValue::Text(text) => text.into(),
        SortValue::Int(int) => int.into(),
    };
    let cursor = WireCursor { sort_value, id: row.id.to_string() };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
}

fn read_cursor(text: &str, column: SortColumn) -> ApiResult<Cursor> {
    let bad = || ApiError::bad_request("cursor is not one this list gave out with this sort");
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| bad())?;
    let wire: WireCursor = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let textual = matches!(column, SortColumn::Name);
    let value = match (wire.sort_value.as_str(), wire.sort_value.as_i64()) {
        (Some(text), None) if textual => SortValue::Text(text.to_owned()),
        (None, Some(int)) if !textual => SortValue::Int(int),
        _ => return Err(bad()),
    };
    Ok(Cursor { value, id: wire.id })
}
