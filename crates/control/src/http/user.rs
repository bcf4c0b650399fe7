//! The caller themselves.

use crate::{
    app::App,
    auth::Caller,
    clock::iso,
    error::{ApiError, ApiResult},
};
use axum::{Json, extract::State};
use infield_api::{error::ErrorBody, user::User};

/// The user a key belongs to.
#[utoipa::path(get, path = "/users/me", operation_id = "getAuthenticatedUser", tag = "users",
    responses((status = 200, body = User), (status = 401, body = ErrorBody)))]
pub async fn me(State(app): State<App>, caller: Caller) -> ApiResult<Json<User>> {
    let row = app.store.user(&caller.key.user_id).await?.ok_or_else(ApiError::unauthorized)?;
    Ok(Json(User {
        id: row.id,
        name: row.name,
        email: row.email,
        email_verified: true,
        public_keys: Vec::new(),
        privacy_policies_accepted: true,
        created_at: iso(row.created_ms),
    }))
}
