//! Coming in and going out.

use leptos::{prelude::*, server_fn::ServerFn};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[(SignIn::PATH, None), (SignOut::PATH, None)];

// public_endpoint: this is how one comes in; the service throttles and records it.
#[server(prefix = "/api/fn", endpoint = "auth/sign-in")]
pub async fn sign_in(email: String, password: String, next: String) -> Answer<String> {
    use domain::ErrorCode;

    use crate::{ssr, state::local_path};
    // What cannot be an address or a password cannot be right either; the answer must not differ.
    let (Ok(email), Ok(password)) = (email.parse(), password.parse()) else {
        return Err(ErrorCode::BadLogin.into());
    };
    let staff = ssr::services()?
        .auth()
        .sign_in(&email, &password, ssr::origin())
        .await?;
    ssr::start_session(staff).await?;
    let next = local_path(&next);
    ssr::redirect_plain_form(&next);
    Ok(next)
}

// public_endpoint: ends the caller's own session; without one there is nothing to end.
#[server(prefix = "/api/fn", endpoint = "auth/sign-out")]
pub async fn sign_out() -> Answer<()> {
    use crate::ssr;
    if let Some(staff) = ssr::staff().await? {
        ssr::services()?.auth().sign_out(staff, ssr::origin()).await?;
    }
    ssr::end_session().await?;
    ssr::redirect_plain_form("/sign-in");
    Ok(())
}
