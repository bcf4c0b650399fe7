//! Users, organizations and who belongs to which.

use crate::{Store, StoreError, db::Row};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    pub id: String,
    pub name: String,
    pub email: String,
    pub created_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrganizationRow {
    pub id: String,
    pub name: String,
    pub created_by: String,
    pub personal: bool,
    pub created_ms: i64,
    pub updated_ms: i64,
}

impl Store {
    /// Inserts a user together with an organization of which they are the owner.
    pub async fn insert_user(&self, user: &UserRow, organization: &OrganizationRow) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        let sql = "INSERT INTO users (id, name, email, created_at) VALUES ($1, $2, $3, $4)";
        let u = user;
        let args = vec![u.id.as_str().into(), u.name.as_str().into(), u.email.as_str().into(), u.created_ms.into()];
        tx.execute(sql, args).await?;
        let sql = "INSERT INTO organizations (id, name, created_by, personal, created_at, updated_at) \
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let o = organization;
        let args = vec![
            o.id.as_str().into(),
            o.name.as_str().into(),
            o.created_by.as_str().into(),
            o.personal.into(),
            o.created_ms.into(),
            o.updated_ms.into(),
        ];
        tx.execute(sql, args).await?;
        let sql = "INSERT INTO members (organization_id, user_id, role) VALUES ($1, $2, 'owner')";
        tx.execute(sql, vec![o.id.as_str().into(), user.id.as_str().into()]).await?;
        tx.commit().await
    }

    pub async fn user(&self, id: &str) -> Result<Option<UserRow>, StoreError> {
        let sql = "SELECT id, name, email, created_at FROM users WHERE id = $1";
        let rows = self.db.fetch(sql, vec![id.into()]).await?;
        rows.first().map(user_row).transpose()
    }

    /// The organizations a user belongs to, oldest first.
    pub async fn organizations_of(&self, user_id: &str) -> Result<Vec<OrganizationRow>, StoreError> {
        let sql = "SELECT o.id, o.name, o.created_by, o.personal, o.created_at, o.updated_at FROM organizations o \
                   JOIN members m ON m.organization_id = o.id WHERE m.user_id = $1 ORDER BY o.created_at, o.id";
        self.db.fetch(sql, vec![user_id.into()]).await?.iter().map(organization_row).collect()
    }

    /// The role (`owner`, `member`) of a user in an organization.
    pub async fn role_of(&self, organization_id: &str, user_id: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT role FROM members WHERE organization_id = $1 AND user_id = $2";
        let rows = self.db.fetch(sql, vec![organization_id.into(), user_id.into()]).await?;
        rows.first().map(|row| row.text(0)).transpose()
    }
}

fn user_row(row: &Row) -> Result<UserRow, StoreError> {
    Ok(UserRow { id: row.text(0)?, name: row.text(1)?, email: row.text(2)?, created_ms: row.int(3)? })
}

fn organization_row(row: &Row) -> Result<OrganizationRow, StoreError> {
    Ok(OrganizationRow {
        id: row.text(0)?,
        name: row.text(1)?,
        created_by: row.text(2)?,
        personal: row.flag(3)?,
        created_ms: row.int(4)?,
        updated_ms: row.int(5)?,
    })
}
