//! What people type into and press.

use leptos::prelude::*;

use super::{Glyph, Icon};

/// How much a button asks to be pressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    Main,
    #[default]
    Plain,
    Danger,
    Ghost,
}

impl Look {
    pub const fn class(self) -> &'static str {
        match self {
            Self::Main => "button main",
            Self::Plain => "button",
            Self::Danger => "button danger",
            Self::Ghost => "button ghost",
        }
    }
}

/// A button that sends its form. `pending` holds it while the answer is on its way.
#[component]
pub fn Button(
    #[prop(optional)] look: Look,
    #[prop(optional)] glyph: Option<Glyph>,
    #[prop(into, optional)] pending: Signal<bool>,
    /// What a screen reader says where the visible words do not name the thing.
    #[prop(into, optional)]
    label: Option<String>,
    children: Children,
) -> impl IntoView {
    view! {
        <button type="submit" class=look.class() aria-label=label disabled=move || pending.get()>
            {glyph.map(|glyph| view! { <Icon glyph /> })}
            <span>{children()}</span>
        </button>
    }
}

/// A labelled line to type into.
#[component]
pub fn Field(
    label: &'static str,
    name: &'static str,
    /// Unique on the page.
    #[prop(into)]
    id: String,
    #[prop(into, optional)] value: String,
    #[prop(optional)] kind: Option<&'static str>,
    #[prop(optional)] hint: Option<&'static str>,
    #[prop(optional)] placeholder: Option<&'static str>,
    #[prop(optional)] autocomplete: Option<&'static str>,
    #[prop(optional)] inputmode: Option<&'static str>,
    #[prop(optional)] required: bool,
    #[prop(optional)] min_length: Option<usize>,
    #[prop(optional)] max_length: Option<usize>,
) -> impl IntoView {
    let hint_id = hint.map(|_| format!("{id}-hint"));
    view! {
        <div class="field">
            <label for=id.clone()>{label}</label>
            <input
                id=id
                name=name
                type=kind.unwrap_or("text")
                value=value
                placeholder=placeholder
                autocomplete=autocomplete
                inputmode=inputmode
                required=required
                minlength=min_length.map(|n| n.to_string())
                maxlength=max_length.map(|n| n.to_string())
                aria-describedby=hint_id.clone()
            />
            {hint.map(|hint| view! { <p class="hint" id=hint_id>{hint}</p> })}
        </div>
    }
}

/// A password with a switch that shows it.
#[component]
pub fn PasswordField(
    label: &'static str,
    show_label: &'static str,
    autocomplete: &'static str,
    #[prop(optional)] hint: Option<&'static str>,
    #[prop(optional)] min_length: Option<usize>,
) -> impl IntoView {
    let shown = RwSignal::new(false);
    view! {
        <div class="field">
            <label for="password">{label}</label>
            <div class="with-button">
                <input
                    id="password"
                    name="password"
                    type=move || if shown.get() { "text" } else { "password" }
                    autocomplete=autocomplete
                    required=true
                    minlength=min_length.map(|n| n.to_string())
                    maxlength=domain::Password::MAX.to_string()
                    aria-describedby=hint.map(|_| "password-hint")
                />
                <button
                    type="button"
                    class="button ghost icon-only needs-script"
                    aria-label=show_label
                    title=show_label
                    aria-pressed=move || shown.get().to_string()
                    on:click=move |_| shown.update(|shown| *shown = !*shown)
                >
                    <Icon glyph=Glyph::Eye />
                </button>
            </div>
            {hint.map(|hint| view! { <p class="hint" id="password-hint">{hint}</p> })}
        </div>
    }
}

/// The words by which a list is narrowed, in the address as `q`; the widest among filters.
#[component]
pub fn SearchField(
    label: &'static str,
    id: &'static str,
    hint: &'static str,
    #[prop(into)] value: String,
) -> impl IntoView {
    view! {
        <div class="field grow">
            <label for=id>{label}</label>
            <input id=id type="search" name="q" maxlength="200" autocomplete="off" placeholder=hint value=value />
        </div>
    }
}

/// A labelled choice among a few; `options` are value and words.
#[component]
pub fn Choice(
    label: &'static str,
    name: &'static str,
    #[prop(into)] id: String,
    #[prop(into)] chosen: String,
    options: Vec<(String, String)>,
) -> impl IntoView {
    let options = options
        .into_iter()
        .map(|(value, words)| {
            let selected = value == chosen;
            view! {
                <option value=value selected=selected>
                    {words}
                </option>
            }
        })
        .collect_view();
    view! {
        <div class="field">
            <label for=id.clone()>{label}</label>
            <select id=id name=name>
                {options}
            </select>
        </div>
    }
}

/// A secret that is typed once and never shown again: no browser should offer to remember it.
#[component]
pub fn SecretField(label: &'static str, name: &'static str, hint: &'static str) -> impl IntoView {
    let hint_id = format!("{name}-hint");
    view! {
        <div class="field">
            <label for=name>{label}</label>
            <input
                id=name
                name=name
                type="password"
                autocomplete="off"
                spellcheck="false"
                required=true
                maxlength="200"
                aria-describedby=hint_id.clone()
            />
            <p class="hint" id=hint_id>
                {hint}
            </p>
        </div>
    }
}

/// A form that only asks: what was typed becomes the address, so a view can be kept and sent. Empty fields are left out.
#[component]
pub fn QueryForm(
    #[prop(into)] action: String,
    class: &'static str,
    /// `search` where it finds things, `form` otherwise.
    #[prop(default = "form")]
    role: &'static str,
    #[prop(into)] label: String,
    children: Children,
) -> impl IntoView {
    let navigate = leptos_router::hooks::use_navigate();
    let path = action.clone();
    let ask = move |event: leptos::ev::SubmitEvent| {
        if let Some(query) = typed(&event) {
            event.prevent_default();
            let address = if query.is_empty() {
                path.clone()
            } else {
                format!("{path}?{query}")
            };
            navigate(&address, leptos_router::NavigateOptions::default());
        }
    };
    view! {
        <form method="get" action=action class=class role=role aria-label=label on:submit=ask>
            {children()}
        </form>
    }
}

/// The fields of a form as a query; `None` lets the browser send it as it would without script.
#[cfg(feature = "hydrate")]
fn typed(event: &leptos::ev::SubmitEvent) -> Option<String> {
    use leptos::{
        wasm_bindgen::JsCast,
        web_sys::{FormData, HtmlFormElement, UrlSearchParams},
    };
    let form: HtmlFormElement = event.target()?.dyn_into().ok()?;
    let data = FormData::new_with_form(&form).ok()?;
    let query = UrlSearchParams::new_with_str_sequence_sequence(&data)
        .ok()?
        .to_string()
        .as_string()?;
    let filled: Vec<&str> = query.split('&').filter(|pair| !pair.ends_with('=')).collect();
    Some(filled.join("&"))
}

#[cfg(not(feature = "hydrate"))]
fn typed(_: &leptos::ev::SubmitEvent) -> Option<String> {
    None
}
