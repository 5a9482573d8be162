//! Page API keys as a browser without script uses it.

use crate::app;

/// Of a team each, half of them revoked.
const KEYS: &str = "INSERT INTO api_keys (id, name, prefix, hash, scopes, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by)
    SELECT gen_random_uuid(), 'team ' || lpad(n::text, 3, '0'), 'bd-' || lpad(n::text, 6, '0'), sha256(n::text::bytea), '{chat}',
           now() - n * interval '1 minute', 'Owner', now() + n * interval '1 hour', now() - (200 - n) * interval '1 hour',
           CASE n % 2 WHEN 1 THEN now() END, CASE n % 2 WHEN 1 THEN 'Owner' END
    FROM generate_series(1, 180) AS n";

/// The names of the keys on a page, in its order.
fn names(page: &str) -> Vec<String> {
    let names = page.split("<b>").skip(1).filter_map(|rest| rest.split('<').next());
    names
        .filter(|name| name.starts_with("team "))
        .map(str::to_owned)
        .collect()
}

/// The link to the page after it.
fn next(page: &str) -> Option<String> {
    let link = page.split("<a ").find(|link| link.contains("rel=\"next\""))?;
    let href = link.split("href=\"").nth(1)?.split('"').next()?;
    Some(href.replace("&amp;", "&"))
}

#[tokio::test]
async fn a_key_beyond_the_first_page_is_found_by_its_name_state_and_order() {
    let app = app().without_bot().start().await;
    app.sql_execute(KEYS).await;
    let owner = app.sign_in("owner").await;
    let page = async |address: &str| {
        let page = owner.page(address).await;
        assert_eq!(page.status, 200, "{address}");
        page.body
    };
    for (order, first, last) in [
        ("created", "team 001", "team 180"),
        ("name", "team 001", "team 180"),
        ("used", "team 180", "team 001"),
    ] {
        let (mut address, mut seen) = (Some(format!("/api-keys?sort={order}")), Vec::new());
        while let Some(here) = address {
            let body = page(&here).await;
            assert!(names(&body).len() <= 50, "{here}");
            seen.extend(names(&body));
            address = next(&body);
        }
        assert_eq!(
            (seen.len(), seen[0].as_str(), seen[179].as_str()),
            (180, first, last),
            "{order}"
        );
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 180, "{order}: one stands on two pages");
    }
    assert_eq!(names(&page("/api-keys?q=TEAM+17&sort=name").await).len(), 10);
    assert_eq!(names(&page("/api-keys?q=bd-000044").await), ["team 044"]);
    assert_eq!(
        names(&page("/api-keys?q=bd-000044&state=revoked").await),
        Vec::<String>::new()
    );
    assert_eq!(
        names(&page("/api-keys?q=team+04&state=revoked&sort=name").await).len(),
        5
    );
    // Within 168 hours, and not revoked.
    let body = page("/api-keys?state=expiring&q=team+16&sort=name").await;
    let soon = ["team 160", "team 162", "team 164", "team 166", "team 168"];
    assert_eq!(names(&body), soon);
    assert!(body.contains("Ends soon"));
    assert_eq!(names(&page("/api-keys?state=expired").await), Vec::<String>::new());
    assert!(page("/api-keys?q=nobody").await.contains("No key fits these filters"));
    app.finish().await;
}

#[tokio::test]
async fn what_the_list_is_asked_wrongly_is_refused_and_support_asks_nothing() {
    let app = app().without_bot().start().await;
    let owner = app.sign_in("owner").await;
    let long = "x".repeat(201);
    for asked in [
        "query[after]=1~2".to_owned(),
        "query[order]=name&query[after]=somewhere".to_owned(),
        format!("query[search]={long}"),
    ] {
        let refused = owner.get(&format!("/api/fn/keys/list?{asked}")).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["code"]),
            (400, &"BD-INPUT".into()),
            "{asked}"
        );
    }
    assert_eq!(owner.page("/api-keys?after=1~2").await.status, 400);
    let support = app.sign_in("support").await;
    assert_eq!(support.page("/api-keys?q=team").await.status, 403);
    assert_eq!(support.get("/api/fn/keys/list?query[search]=team").await.status, 403);
    app.finish().await;
}
