//! Volumes: list, read, make, delete.

use super::{
    extract::{Body, Query},
    view,
};
use crate::{
    app::App,
    auth::Caller,
    clock::now_ms,
    error::{ApiError, ApiResult},
    names, volumes,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use infield_api::{
    api_key::Permission,
    error::ErrorBody,
    volume::{CreateVolume, VolumeDto, VolumeState},
};
use infield_store::{StoreError, VolumeRow};
use uuid::Uuid;

/// The organization's volumes, the one used last first.
#[utoipa::path(get, path = "/volumes", operation_id = "listVolumes", tag = "volumes",
    params(("includeDeleted" = Option<bool>, Query)), responses((status = 200, body = Vec<VolumeDto>)))]
pub async fn list(State(app): State<App>, caller: Caller, query: Query) -> ApiResult<Json<Vec<VolumeDto>>> {
    caller.need(Permission::ReadVolumes)?;
    let rows = app.store.volumes(caller.organization(), query.flag("includeDeleted")?.unwrap_or(false)).await?;
    Ok(Json(rows.into_iter().map(view::volume).collect()))
}

#[utoipa::path(get, path = "/volumes/{volumeId}", operation_id = "getVolume", tag = "volumes",
    params(("volumeId" = String, Path)), responses((status = 200, body = VolumeDto), (status = 404, body = ErrorBody)))]
pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<VolumeDto>> {
    caller.need(Permission::ReadVolumes)?;
    let row = app.store.volume(&id).await?.filter(|row| row.organization_id == caller.organization());
    row.map(|row| Json(view::volume(row))).ok_or_else(|| absent(&id))
}

#[utoipa::path(get, path = "/volumes/by-name/{name}", operation_id = "getVolumeByName", tag = "volumes",
    params(("name" = String, Path)), responses((status = 200, body = VolumeDto), (status = 404, body = ErrorBody)))]
pub async fn by_name(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> ApiResult<Json<VolumeDto>> {
    caller.need(Permission::ReadVolumes)?;
    let row = app.store.volume_by_name(caller.organization(), &name).await?;
    row.map(|row| Json(view::volume(row))).ok_or_else(|| absent(&name))
}

/// The volume is made in the background: `pending_create`, then `ready`.
#[utoipa::path(post, path = "/volumes", operation_id = "createVolume", tag = "volumes", request_body = CreateVolume,
    responses((status = 200, body = VolumeDto), (status = 400, body = ErrorBody)))]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<CreateVolume>,
) -> ApiResult<Json<VolumeDto>> {
    caller.need(Permission::WriteVolumes)?;
    let id = Uuid::new_v4().to_string();
    let name = body.name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    if let Some(name) = &name {
        names::check_safe("name", name)?;
    }
    if app.store.volumes(caller.organization(), false).await?.len() >= volumes::VOLUMES_MAX {
        let message = format!("Volume quota exceeded: {} is the most; delete one", volumes::VOLUMES_MAX);
        return Err(ApiError::bad_request(message));
    }
    let now = now_ms();
    let row = VolumeRow {
        name: name.unwrap_or_else(|| id.clone()),
        id,
        organization_id: caller.organization().to_owned(),
        state: VolumeState::PendingCreate,
        size_gib: volumes::SIZE_GIB,
        error_reason: None,
        created_ms: now,
        updated_ms: now,
        last_used_ms: None,
    };
    app.store.insert_volume(&row).await.map_err(|e| match e {
        StoreError::NameTaken => ApiError::bad_request(format!("Volume with name {} already exists", row.name)),
        other => other.into(),
    })?;
    app.events.volume_created(&row);
    volumes::work_on(&app, row.clone());
    Ok(Json(view::volume(row)))
}

/// Deletes a volume that no sandbox uses, with its files.
#[utoipa::path(delete, path = "/volumes/{volumeId}", operation_id = "deleteVolume", tag = "volumes",
    params(("volumeId" = String, Path)),
    responses((status = 200), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.need(Permission::DeleteVolumes)?;
    let row = volumes::find(&app, &caller, &id).await?;
    if !matches!(row.state, VolumeState::Ready | VolumeState::Error) {
        let state = row.state.as_str();
        return Err(ApiError::bad_request(format!(
            "Volume {} is {state}; only ready or failed ones are deleted",
            row.name
        )));
    }
    if !app.store.intend_volume_delete(&row.id, now_ms()).await? {
        return Err(ApiError::conflict(match app.store.is_volume_used(&row.id).await? {
            true => format!("Volume {} is used by a sandbox; delete that first", row.name),
            false => format!("Volume {} is changing; ask again", row.name),
        }));
    }
    let now = VolumeRow { state: VolumeState::PendingDelete, ..row.clone() };
    app.events.volume_state(&now, row.state);
    volumes::work_on(&app, now);
    Ok(StatusCode::OK)
}

fn absent(id: &str) -> ApiError {
    ApiError::not_found(format!("Volume with ID or name {id} not found"))
}
