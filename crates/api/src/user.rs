//! The person behind a key, as `GET /users/me` shows them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub id: String,
    pub name: String,
    pub email: String,
    pub email_verified: bool,
    pub public_keys: Vec<UserPublicKey>,
    pub privacy_policies_accepted: bool,
    /// ISO-8601 UTC with milliseconds.
    pub created_at: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserPublicKey {
    pub key: String,
    pub name: String,
}
