//! Pages asked for by many at the same moment.

use futures::{StreamExt, stream};

use crate::{anna, app};

/// Each waits for several things at once, which are ready in any order: none may wait for ever.
#[tokio::test]
async fn every_page_of_hundreds_is_rendered() {
    let app = app().start().await;
    app.say(&anna(), "hello");
    app.answer(anna().id, "Echo: hello").await;
    let staff = app.sign_in("owner").await;
    let user = app.sql_one("SELECT id FROM users WHERE external_id > 0").await;
    let person = format!("/users/{}", user["id"].as_str().unwrap());
    let paths = [person.as_str(), "/", "/users", "/bots", "/models"];
    let asked = paths.iter().cycle().take(400);
    let pages = stream::iter(asked).map(|path| staff.page(path)).buffer_unordered(8);
    pages
        .for_each(async |page| assert_eq!(page.status, 200, "{page:?}"))
        .await;
    app.finish().await;
}
