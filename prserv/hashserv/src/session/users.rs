//! Logging in and managing users.

use std::time::Duration;

use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::{HashSession, SessionError};
use crate::permission::{Permissions, UnknownPermission};
use crate::protocol::reply::{TokenReply, UserReply};
use crate::protocol::request::UserRequest;
use crate::service::UserChange;
use crate::store::User;
use crate::token;

/// The time until a wrong token is refused.
const WRONG_TOKEN_DELAY: Duration = Duration::from_secs(1);

/// The time that a new token takes, one after another, so that nobody can draw many.
const NEW_TOKEN_DELAY: Duration = Duration::from_millis(100);

static NEW_TOKEN: Mutex<()> = Mutex::const_new(());

impl HashSession {
    /// Logs a user in, for the rest of the session.
    pub(super) async fn log_in(&mut self, username: &str, token: &str) -> Result<(), SessionError> {
        let found = if self.access.login {
            self.service.user(username).await?
        } else {
            None
        };
        match found {
            Some((user, hash)) if token::verify(token, &hash) => {
                tracing::info!(client = %self.peer, username, "a user has logged in");
                self.buffers.reply(&json!({
                    "result": true,
                    "username": user.username,
                    "permissions": user.permissions.names(),
                }));
                self.user = Some(user);
                Ok(())
            }
            _ => {
                sleep(WRONG_TOKEN_DELAY).await;
                let text = format!("Unable to authenticate as {username}");
                Err(SessionError::Refused(text))
            }
        }
    }

    /// Answers a request about users, which the user may make.
    pub(super) async fn answer_user_request(
        &mut self,
        request: UserRequest,
    ) -> Result<(), SessionError> {
        match request {
            UserRequest::Get(name) => {
                let name = self.name_or_own(name)?;
                let user = self.service.user(&name).await?;
                self.buffers.reply(&user.map(|(user, _)| described(&user)));
            }
            UserRequest::GetAll => {
                let users = self.service.users().await?;
                let users: Vec<UserReply> = users.iter().map(described).collect();
                self.buffers.reply(&json!({ "users": users }));
            }
            UserRequest::Become(name) => {
                let Some((user, _)) = self.service.user(&name).await? else {
                    let text = format!("User {name} doesn't exist");
                    return Err(SessionError::Refused(text));
                };
                tracing::info!(client = %self.peer, username = name, "continuing as another user");
                self.buffers.reply(&described(&user));
                self.user = Some(user);
            }
            UserRequest::RefreshToken(name) => {
                let username = self.name_or_own(name)?;
                let (token, hash) = new_token().await?;
                let change = UserChange::SetToken(username.clone(), hash);
                self.change_existing(&username, change).await?;
                self.buffers.reply(&TokenReply {
                    username,
                    permissions: None,
                    token,
                });
            }
            UserRequest::SetPermissions(username, permissions) => {
                let user = checked(username, permissions)?;
                let reply = described(&user);
                let change = UserChange::SetPermissions(user);
                self.change_existing(&reply.username, change).await?;
                self.buffers.reply(&reply);
            }
            UserRequest::New(username, permissions) => {
                let user = checked(username, permissions)?;
                self.add_user(user).await?;
            }
            UserRequest::Delete(name) => {
                let username = self.name_or_own(name)?;
                let change = UserChange::Delete(username.clone());
                self.change_existing(&username, change).await?;
                self.buffers.reply(&json!({ "username": username }));
            }
        }
        Ok(())
    }

    async fn add_user(&mut self, user: User) -> Result<(), SessionError> {
        let (token, hash) = new_token().await?;
        let UserReply {
            username,
            permissions,
        } = described(&user);
        if !self
            .service
            .change_users(UserChange::Add(user, hash))
            .await?
        {
            let text = format!("Cannot create new user '{username}'");
            return Err(SessionError::Refused(text));
        }
        self.buffers.reply(&TokenReply {
            username,
            permissions: Some(permissions),
            token,
        });
        Ok(())
    }

    async fn change_existing(
        &self,
        username: &str,
        change: UserChange,
    ) -> Result<(), SessionError> {
        if self.service.change_users(change).await? {
            return Ok(());
        }
        let text = format!("No user named '{username}' exists");
        Err(SessionError::Refused(text))
    }

    /// Returns the name in a request, or the name of the user.
    fn name_or_own(&self, name: Option<String>) -> Result<String, SessionError> {
        let own = || self.user.as_ref().map(|user| user.username.clone());
        name.or_else(own)
            .ok_or_else(|| SessionError::Refused("the request names no user".to_owned()))
    }
}

fn described(user: &User) -> UserReply {
    UserReply {
        username: user.username.clone(),
        permissions: user.permissions.effective_names(),
    }
}

fn checked(
    username: String,
    permissions: Result<Permissions, UnknownPermission>,
) -> Result<User, SessionError> {
    let permissions = permissions.map_err(|error| SessionError::Refused(error.to_string()))?;
    Ok(User {
        username,
        permissions,
    })
}

/// Returns a new token and its hash.
async fn new_token() -> Result<(String, String), SessionError> {
    let _turn = NEW_TOKEN.lock().await;
    sleep(NEW_TOKEN_DELAY).await;
    let drawn = token::generate().and_then(|token| {
        let hash = token::hash(&token)?;
        Ok((token, hash))
    });
    drawn.map_err(|error| SessionError::Refused(format!("cannot draw a token: {error}")))
}
