//! The door.

pub mod api;

use leptos::{prelude::*, server_fn::ServerFn};
use leptos_meta::Title;
use leptos_router::{components::Redirect, hooks::use_query_map};

use self::api::SignIn;
use crate::{
    AppFailure,
    components::{Button, Field, FormFailure, Look, PasswordField},
    i18n::use_texts,
    routes::{Brand, Switches},
    state::{failure, local_path, use_session},
};

#[component]
pub fn SignInPage() -> impl IntoView {
    let t = use_texts();
    let session = use_session();
    let next = use_query_map()
        .with_untracked(|query| query.get("next"))
        .unwrap_or_default();
    let next = local_path(&next);
    let sign_in = ServerAction::<SignIn>::new();
    leave_for(sign_in);
    let pending = sign_in.pending();
    let inside = next.clone();
    view! {
        <Title text=t.sign_in />
        <Door title=t.sign_in>
            <Suspense>
                {move || {
                    let inside = inside.clone();
                    Suspend::new(async move {
                        let shell = session.0.await.ok()?;
                        if shell.me.is_some() {
                            Some(view! { <Redirect path=inside /> }.into_any())
                        } else if shell.has_owner {
                            None
                        } else {
                            Some(view! { <Redirect path="/setup" /> }.into_any())
                        }
                    })
                }}
            </Suspense>
            <ActionForm action=sign_in attr:class="stack">
                <input type="hidden" name="next" value=next />
                <Field
                    label=t.email
                    name="email"
                    id="email"
                    kind="email"
                    autocomplete="username"
                    inputmode="email"
                    required=true
                    max_length=254
                />
                <PasswordField label=t.password show_label=t.password_show autocomplete="current-password" />
                <FormFailure error=failure(sign_in) />
                <Button look=Look::Main pending>
                    {t.sign_in}
                </Button>
            </ActionForm>
        </Door>
    }
}

/// The frame of the pages before one is inside.
#[component]
pub fn Door(title: &'static str, children: Children) -> impl IntoView {
    let t = use_texts();
    view! {
        <div class="door">
            <header class="door-top">
                <span class="brand">
                    <Brand />
                    <span class="brand-name">"Botdeck"</span>
                </span>
                <div class="door-switches">
                    <Switches />
                </div>
            </header>
            <main id="main" class="door-card">
                <h1>{title}</h1>
                {children()}
            </main>
            <footer class="door-foot muted">{t.tagline}</footer>
        </div>
    }
}

/// Once inside, loads a new document: everything that was rendered for a stranger is to be forgotten.
pub fn leave_for<S>(action: ServerAction<S>)
where
    S: ServerFn<Output = String, Error = AppFailure> + Clone + Send + Sync + 'static,
{
    Effect::new(move |_| {
        if let Some(Ok(path)) = action.value().get() {
            let _ = window().location().assign(&path);
        }
    });
}
