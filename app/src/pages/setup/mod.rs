//! The first visit: one form that makes the owner, for whoever holds the one-time link.

pub mod api;

use domain::Password;
use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::{components::Redirect, hooks::use_query_map};

use self::api::RedeemSetup;
use crate::{
    components::{Button, Field, FormFailure, Glyph, Look, Notice, PasswordField, Tone},
    i18n::use_texts,
    pages::sign_in::{Door, leave_for},
    state::{failure, use_session},
};

#[component]
pub fn SetupPage() -> impl IntoView {
    let t = use_texts();
    let session = use_session();
    let token = use_query_map()
        .with_untracked(|query| query.get("token"))
        .unwrap_or_default();
    let redeem = ServerAction::<RedeemSetup>::new();
    leave_for(redeem);
    view! {
        <Title text=t.setup_title />
        <Door title=t.setup_title>
            <Suspense>
                {move || {
                    let token = token.clone();
                    Suspend::new(async move {
                        let shell = session.0.await;
                        match shell {
                            Ok(shell) if shell.me.is_some() => view! { <Redirect path="/" /> }.into_any(),
                            Ok(shell) if shell.has_owner => {
                                view! {
                                    <Notice tone=Tone::Good glyph=Glyph::Check>
                                        <p>{t.setup_done}</p>
                                    </Notice>
                                    <p><a class="button main block" href="/sign-in">{t.sign_in}</a></p>
                                }
                                    .into_any()
                            }
                            _ if token.trim().is_empty() => {
                                view! {
                                    <Notice tone=Tone::Accent glyph=Glyph::Key>
                                        <p>{t.setup_needs_link}</p>
                                        <p class="muted">{t.setup_needs_link_hint}</p>
                                    </Notice>
                                }
                                    .into_any()
                            }
                            _ => view! { <OwnerForm token redeem /> }.into_any(),
                        }
                    })
                }}
            </Suspense>
        </Door>
    }
}

#[component]
fn OwnerForm(token: String, redeem: ServerAction<RedeemSetup>) -> impl IntoView {
    let t = use_texts();
    let pending = redeem.pending();
    view! {
        <p class="lead">{t.setup_lead}</p>
        <ActionForm action=redeem attr:class="stack">
            <input type="hidden" name="token" value=token />
            <Field label=t.name name="name" id="name" autocomplete="name" required=true max_length=64 />
            <Field
                label=t.email
                name="email"
                id="email"
                kind="email"
                autocomplete="username"
                inputmode="email"
                placeholder="ann@example.org"
                required=true
                max_length=254
            />
            <PasswordField
                label=t.password
                show_label=t.password_show
                autocomplete="new-password"
                hint=t.password_rule
                min_length=Password::MIN
            />
            <FormFailure error=failure(redeem) />
            <Button look=Look::Main pending>
                {t.setup_create}
            </Button>
        </ActionForm>
    }
}
