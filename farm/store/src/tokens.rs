//! The tokens of clients. The database has their hashes only.

use config::tokens::{Scope, TokenName};
use farm_core::view::TokenView;
use tokio_postgres::types::ToSql;

use crate::rows::{parsed, time};
use crate::{Secret, Store, StoreError, sql};

impl Store {
    /// Adds a token. Returns false if one has the same name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn add_token(
        &self,
        name: &TokenName,
        scope: Scope,
        secret: Secret,
    ) -> Result<bool, StoreError> {
        let scope = scope.to_string();
        let added = self
            .execute(
                sql::ADD_TOKEN,
                &[&name.as_str(), &secret.as_slice(), &scope],
            )
            .await?;
        Ok(added > 0)
    }

    /// Takes a token away. Returns false if none has this name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn revoke_token(&self, name: &TokenName) -> Result<bool, StoreError> {
        let removed = self.execute(sql::REVOKE_TOKEN, &[&name.as_str()]).await?;
        Ok(removed > 0)
    }

    /// Returns the tokens by name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn tokens(&self) -> Result<Vec<TokenView>, StoreError> {
        let rows = self.query(sql::TOKENS, &[]).await?;
        let view = |row: &tokio_postgres::Row| {
            Ok(TokenView {
                name: parsed("tokens", 0, row.get(0))?,
                scope: parsed("tokens", 0, row.get(1))?,
                created: time(row.get(2)),
            })
        };
        rows.iter().map(view).collect()
    }

    /// Returns the name and the rights of the client with this secret.
    ///
    /// # Errors
    /// The database fails.
    pub async fn client(&self, secret: Secret) -> Result<Option<(TokenName, Scope)>, StoreError> {
        let rows = self.query(sql::TOKEN, &[&secret.as_slice()]).await?;
        let client = |row: &tokio_postgres::Row| {
            let name = parsed("tokens", 0, row.get(0))?;
            Ok((name, parsed("tokens", 0, row.get(1))?))
        };
        rows.first().map(client).transpose()
    }

    /// Opens a session of a browser that has signed in with a token.
    ///
    /// # Errors
    /// The database fails.
    pub async fn open_session(&self, session: Secret, token: Secret) -> Result<(), StoreError> {
        let parameters: &[&(dyn ToSql + Sync)] = &[&session.as_slice(), &token.as_slice()];
        self.execute(sql::OPEN_SESSION, parameters).await?;
        Ok(())
    }

    /// Returns the token of a session, which counts as used. It ends after 12 hours without use, and after
    /// 7 days.
    ///
    /// # Errors
    /// The database fails.
    pub async fn session(&self, session: Secret) -> Result<Option<Secret>, StoreError> {
        let rows = self.query(sql::SESSION, &[&session.as_slice()]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        if !row.get::<_, bool>(1) {
            self.execute(sql::TOUCH_SESSION, &[&session.as_slice()])
                .await?;
        }
        let token: &[u8] = row.get(0);
        Ok(token.try_into().ok())
    }

    /// Ends a session.
    ///
    /// # Errors
    /// The database fails.
    pub async fn close_session(&self, session: Secret) -> Result<(), StoreError> {
        self.execute(sql::CLOSE_SESSION, &[&session.as_slice()])
            .await?;
        Ok(())
    }
}
