//! Snapshots: list, read, make from an image, delete.

use super::{
    extract::{Body, Query},
    sandbox_list::descending,
    view,
};
use crate::{
    app::{App, REGION},
    auth::Caller,
    clock::now_ms,
    error::{ApiError, ApiResult},
    lifecycle::create::check_limits,
    names, snapshots,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use infield_api::{
    api_key::Permission,
    error::ErrorBody,
    snapshot::{CreateSnapshot, PaginatedSnapshots, SnapshotDto},
    state::SnapshotState,
};
use infield_store::{SnapshotPage, SnapshotRow, SnapshotSort, StoreError};
use uuid::Uuid;

const LIMIT_DEFAULT: i64 = 100;
const LIMIT_MAX: i64 = 200;

/// Own snapshots, then those of every organization.
#[utoipa::path(get, path = "/snapshots", operation_id = "getAllSnapshots", tag = "snapshots",
    params(("page" = Option<i64>, Query, minimum = 1), ("limit" = Option<i64>, Query, minimum = 1, maximum = 200),
        ("name" = Option<String>, Query), ("sourceSandboxId" = Option<String>, Query),
        ("sort" = Option<String>, Query), ("order" = Option<String>, Query)),
    responses((status = 200, body = PaginatedSnapshots), (status = 400, body = ErrorBody)))]
pub async fn list(State(app): State<App>, caller: Caller, query: Query) -> ApiResult<Json<PaginatedSnapshots>> {
    let page = SnapshotPage {
        organization_id: caller.organization().to_owned(),
        name: query.text("name").map(str::to_owned),
        sort: sort_of(&query)?,
        descending: descending(&query)?,
        page: query.int("page", 1)?.unwrap_or(1),
        limit: query.int_within("limit", LIMIT_DEFAULT, LIMIT_MAX)?,
    };
    if query.text("sourceSandboxId").is_some() {
        // Snapshots of sandboxes are not built: nothing has a source.
        return Ok(Json(PaginatedSnapshots { items: Vec::new(), total: 0, page: page.page, total_pages: 0 }));
    }
    let (rows, total) = app.store.page_snapshots(&page).await?;
    let total_pages = total / page.limit + i64::from(total % page.limit > 0);
    let items = rows.into_iter().map(view::snapshot).collect();
    Ok(Json(PaginatedSnapshots { items, total, page: page.page, total_pages }))
}

/// One snapshot by id or name.
#[utoipa::path(get, path = "/snapshots/{id}", operation_id = "getSnapshot", tag = "snapshots",
    params(("id" = String, Path)), responses((status = 200, body = SnapshotDto), (status = 404, body = ErrorBody)))]
pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<SnapshotDto>> {
    let row = app.store.find_snapshot(caller.organization(), &id).await?;
    row.map(|row| Json(view::snapshot(row))).ok_or_else(|| absent(&id))
}

/// Make a snapshot from an image; the image is pulled in the background.
#[utoipa::path(post, path = "/snapshots", operation_id = "createSnapshot", tag = "snapshots",
    request_body = CreateSnapshot,
    responses((status = 200, body = SnapshotDto), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<CreateSnapshot>,
) -> ApiResult<Json<SnapshotDto>> {
    caller.need(Permission::WriteSnapshots)?;
    let row = new_row(&app, &caller, body)?;
    app.store.insert_snapshot(&row).await.map_err(|e| match e {
        StoreError::NameTaken => ApiError::conflict(format!("Snapshot with name {} already exists", row.name)),
        other => other.into(),
    })?;
    app.snapshots.forget();
    app.events.snapshot_created(&row);
    snapshots::pull(&app, row.clone());
    Ok(Json(view::snapshot(row)))
}

/// Delete a snapshot by its id, and its image when it was the last one of it. Sandboxes made from it go on.
#[utoipa::path(delete, path = "/snapshots/{id}", operation_id = "removeSnapshot", tag = "snapshots",
    params(("id" = String, Path)),
    responses((status = 200), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.need(Permission::DeleteSnapshots)?;
    Uuid::parse_str(&id).map_err(|_| ApiError::bad_request("id must be the snapshot's UUID; GET it by name first"))?;
    let row = app.store.find_snapshot(caller.organization(), &id).await?.ok_or_else(|| absent(&id))?;
    if row.general {
        return Err(ApiError::forbidden(
            "A snapshot of every organization cannot be deleted; remove its image instead",
        ));
    }
    app.store.delete_snapshot(&row.id).await?;
    app.snapshots.forget();
    app.events.snapshot_removed(&row);
    snapshots::sync_soon(&app);
    Ok(StatusCode::OK)
}

fn sort_of(query: &Query) -> ApiResult<SnapshotSort> {
    match query.text("sort") {
        None | Some("lastUsedAt") => Ok(SnapshotSort::LastUsed),
        Some("name") => Ok(SnapshotSort::Name),
        Some("state") => Ok(SnapshotSort::State),
        Some("createdAt") => Ok(SnapshotSort::Created),
        Some(_) => Err(ApiError::bad_request("sort must be one of name, state, lastUsedAt, createdAt")),
    }
}

/// The contract's checks, in its order.
fn new_row(app: &App, caller: &Caller, body: CreateSnapshot) -> ApiResult<SnapshotRow> {
    let image_name = body.image_name.as_deref().map(str::trim).filter(|image| !image.is_empty());
    match (image_name, &body.build_info) {
        (None, None) => return Err(ApiError::bad_request("Give an imageName")),
        (Some(_), Some(_)) => return Err(ApiError::bad_request("Give either imageName or buildInfo, not both")),
        (None, Some(_)) if body.entrypoint.is_some() => {
            return Err(ApiError::bad_request("entrypoint does not go with buildInfo"));
        }
        _ => {}
    }
    names::check_snapshot_name(&body.name)?;
    let Some(image_name) = image_name else {
        return Err(ApiError::not_built("Building an image from a Dockerfile (buildInfo)"));
    };
    names::check_image_name(image_name)?;
    if body.gpu.is_some_and(|gpu| gpu != 0) || body.gpu_type.as_ref().is_some_and(|types| !types.is_empty()) {
        return Err(ApiError::bad_request("GPUs are not available on this server"));
    }
    if body.sandbox_class.as_deref().is_some_and(|class| class != "container") {
        return Err(ApiError::bad_request("This server has sandboxes of class container only"));
    }
    if let Some(region) = body.region_id.as_deref().filter(|region| !region.is_empty() && *region != REGION) {
        return Err(ApiError::not_found(format!("Region {region} not found; this server has the region {REGION}")));
    }
    for (field, value) in [("cpu", body.cpu), ("memory", body.memory), ("disk", body.disk)] {
        if value.is_some_and(|v| v < 1) {
            return Err(ApiError::bad_request(format!("{field} must not be less than 1")));
        }
    }
    check_limits(app, body.cpu, body.memory, body.disk)?;
    let now = now_ms();
    Ok(SnapshotRow {
        id: Uuid::new_v4().to_string(),
        organization_id: caller.organization().to_owned(),
        name: body.name,
        general: false,
        image_name: image_name.to_owned(),
        state: SnapshotState::Pending,
        size_bytes: None,
        entrypoint: body.entrypoint.filter(|words| !words.is_empty()),
        cpu: body.cpu.unwrap_or(snapshots::DEFAULT_CPU),
        memory_gib: body.memory.unwrap_or(snapshots::DEFAULT_MEMORY_GIB),
        disk_gib: body.disk.unwrap_or(snapshots::DEFAULT_DISK_GIB),
        error_reason: None,
        image: None,
        image_user: None,
        last_used_ms: None,
        created_ms: now,
        updated_ms: now,
        source_sandbox_id: None,
    })
}

fn absent(id: &str) -> ApiError {
    ApiError::not_found(format!("Snapshot {id} not found"))
}
