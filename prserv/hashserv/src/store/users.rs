//! The users.

use super::sql::{Param, Row};
use super::{Store, StoreError};
use crate::permission::Permissions;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub username: String,
    /// The permissions.
    pub permissions: Permissions,
}

impl Store {
    /// Returns a user and the hash of the token.
    pub fn user(&mut self, username: &str) -> Result<Option<(User, String)>, StoreError> {
        let sql = "SELECT username, permissions, token FROM users WHERE username = ?1";
        let rows = self.sql.query(sql, &[Param::Text(username)])?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some((user(row)?, row.text(2)?)))
    }

    /// Returns all users.
    pub fn users(&mut self) -> Result<Vec<User>, StoreError> {
        let sql = "SELECT username, permissions FROM users ORDER BY id";
        self.sql.query(sql, &[])?.iter().map(user).collect()
    }

    /// Adds a user. Returns false if the name is taken.
    pub fn add_user(&mut self, user: &User, token_hash: &str) -> Result<bool, StoreError> {
        let sql = "INSERT INTO users (username, token, permissions) VALUES (?1, ?2, ?3)
            ON CONFLICT DO NOTHING";
        let permissions = user.permissions.names().join(" ");
        let params = [
            Param::Text(&user.username),
            Param::Text(token_hash),
            Param::Text(&permissions),
        ];
        Ok(self.sql.execute(sql, &params)? > 0)
    }

    /// Replaces the token of a user. Returns false if there is no such user.
    pub fn set_token(&mut self, username: &str, token_hash: &str) -> Result<bool, StoreError> {
        let sql = "UPDATE users SET token = ?1 WHERE username = ?2";
        let params = [Param::Text(token_hash), Param::Text(username)];
        Ok(self.sql.execute(sql, &params)? > 0)
    }

    /// Replaces the permissions of a user. Returns false if there is no such user.
    pub fn set_permissions(&mut self, user: &User) -> Result<bool, StoreError> {
        let sql = "UPDATE users SET permissions = ?1 WHERE username = ?2";
        let permissions = user.permissions.names().join(" ");
        let params = [Param::Text(&permissions), Param::Text(&user.username)];
        Ok(self.sql.execute(sql, &params)? > 0)
    }

    /// Deletes a user. Returns false if there is no such user.
    pub fn delete_user(&mut self, username: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM users WHERE username = ?1";
        Ok(self.sql.execute(sql, &[Param::Text(username)])? > 0)
    }
}

fn user(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        username: row.text(0)?,
        permissions: Permissions::from_record(&row.optional(1)?.unwrap_or_default()),
    })
}
