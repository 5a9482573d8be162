//! What staff may do about limits without changing them: more of one for a while, or its window anew.

use domain::{LimitKind, LimitOwner};
use leptos::prelude::*;

use super::api::{BoostLimit, ResetLimit};
use crate::{
    components::{Button, Choice, Field, FormFailure, Look},
    i18n::{fill, use_texts},
    state::failure,
};

#[component]
pub fn BoostForm(owner: LimitOwner, kinds: Vec<LimitKind>, action: ServerAction<BoostLimit>) -> impl IntoView {
    let t = use_texts();
    let pending = action.pending();
    let first = kinds.first().map(ToString::to_string).unwrap_or_default();
    let options = kinds
        .iter()
        .map(|kind| (kind.to_string(), t.limit(*kind).to_owned()))
        .collect();
    view! {
        <ActionForm action attr:class="stack">
            <input type="hidden" name="owner" value=owner.to_string() />
            <Choice label=t.boost name="kind" id="boost-kind" chosen=first options />
            <div class="field-grid">
                <Field label=t.boost_amount name="amount" id="boost-amount" autocomplete="off" inputmode="decimal" max_length=20 />
                <Field label=t.boost_until name="until" id="boost-until" kind="date" />
            </div>
            <p class="hint">{t.boost_hint}</p>
            <FormFailure error=failure(action) />
            <Button pending>{t.boost_set}</Button>
        </ActionForm>
    }
}

/// One click: what was used of the current window no longer counts.
#[component]
pub fn ResetForm(owner: LimitOwner, kind: LimitKind, action: ServerAction<ResetLimit>) -> impl IntoView {
    let t = use_texts();
    let pending = action.pending();
    view! {
        <ActionForm action>
            <input type="hidden" name="owner" value=owner.to_string() />
            <input type="hidden" name="kind" value=kind.to_string() />
            <Button look=Look::Ghost pending label=fill(t.reset_limit_label, &[t.limit(kind)])>
                {t.reset_limit}
            </Button>
        </ActionForm>
    }
}
