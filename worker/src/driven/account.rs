//! The accounts of a guest's users.

/// A user that a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: u32,
    pub(super) group: u32,
    /// The name and the home directory, if the user has an entry.
    pub(super) names: Option<(String, String)>,
}

/// Returns the account of a user, by name or number, from the content of `/etc/passwd`. A number
/// without an entry is a user and a group. Returns `None` for an unknown name.
pub(super) fn find(passwd: &str, user: &str) -> Option<Account> {
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [name, _, id, group, _, home, ..] = fields.as_slice() else {
            return None;
        };
        let (id, group) = (id.parse().ok()?, group.parse().ok()?);
        (*name == user || user.parse() == Ok(id)).then(|| Account {
            user: id,
            group,
            names: Some(((*name).to_owned(), (*home).to_owned())),
        })
    });
    entry.or_else(|| {
        let id = user.parse().ok()?;
        Some(Account {
            user: id,
            group: id,
            names: None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names_and_numbers() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nci:x:1000:50::/home/ci:/bin/sh\n";
        let ci = Account {
            user: 1000,
            group: 50,
            names: Some(("ci".into(), "/home/ci".into())),
        };
        assert_eq!(find(passwd, "ci"), Some(ci.clone()));
        assert_eq!(find(passwd, "1000"), Some(ci));
        let number = find(passwd, "7").unwrap();
        assert_eq!((number.user, number.group, number.names), (7, 7, None));
        assert_eq!(find(passwd, "nobody"), None);
        assert_eq!(find(passwd, ""), None);
    }
}
