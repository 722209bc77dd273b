//! The removal of a package's rows from a store.

mod plan;

pub use plan::{Forget, ForgetError, Plan, plan};

use crate::store::{Filter, Row, Store, StoreError};

/// Removes the rows of a request within the open transaction of a store. Returns them, or the
/// reason for which nothing is removed.
pub fn remove(
    store: &mut dyn Store,
    request: &Forget,
) -> Result<Result<Vec<Row>, ForgetError>, StoreError> {
    let filter = Filter {
        version: Some(request.package.version.clone()),
        pkgarch: Some(request.package.pkgarch.clone()),
        checksum: None,
    };
    let plan = match request.plan(&store.rows(&filter)?) {
        Ok(plan) => plan,
        Err(refusal) => return Ok(Err(refusal)),
    };
    store.delete(&plan.rows)?;
    Ok(Ok(plan.rows))
}
