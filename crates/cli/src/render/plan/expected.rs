//! What the job says of its own result, and what is asked before the rest goes on.

use pgmend::Plan;
use pgmend_core::expect::Then;

use crate::render::figure;
use crate::render::page::Page;

/// The job's expectations and its canary batch, or nothing.
pub fn expectations(page: &mut Page, plan: &Plan) {
    let expect = &plan.expect;
    if expect.rows.is_none()
        && expect.scope.is_none()
        && expect.unchanged.is_empty()
        && expect.after.is_empty()
        && plan.canary.is_none()
    {
        return;
    }
    page.heading("EXPECTATIONS", "checked now, while it runs and at the end");
    if let Some(band) = expect.rows {
        let bounds = match (band.min, band.max) {
            (Some(min), Some(max)) => format!("{} to {}", figure::rows(min), figure::rows(max)),
            (Some(min), None) => format!("at least {}", figure::rows(min)),
            (None, Some(max)) => format!("at most {}", figure::rows(max)),
            (None, None) => "any number".to_owned(),
        };
        page.pair("rows", &format!("{bounds}; a run that exceeds it stops itself"));
    }
    if let Some(scope) = &expect.scope {
        page.pair("scope", &format!("{scope}; a row outside blocks the plan"));
    }
    let unchanged: Vec<String> = expect.unchanged.iter().map(|query| format!("{query}  gives the same")).collect();
    page.pairs("unchanged", &unchanged);
    let after: Vec<String> = expect.after.iter().map(|a| format!("{}  gives {}", a.query, a.equals)).collect();
    page.pairs("after", &after);
    if let Some(canary) = &plan.canary {
        let then = match canary.then {
            Then::Go => "the rest, if the unchanged answers are as before",
            Then::Pause => "a pause, for somebody to look",
        };
        page.pair("canary", &format!("{} first, then {then}", figure::counted(i64::from(canary.rows), "row")));
    }
}

#[cfg(test)]
mod tests {
    use pgmend_core::expect::{Answer, Band, Canary, Expect};

    use super::*;
    use crate::render::example;
    use crate::render::paint::Paint;

    #[test]
    fn a_reviewer_sees_what_the_job_expects() {
        let mut plan = example::planned().plan;
        let mut page = Page::new(Paint::PLAIN);
        expectations(&mut page, &plan);
        assert_eq!(page.text(), "");
        plan.expect = Expect {
            rows: Some(Band { min: Some(900), max: Some(1_100) }),
            scope: Some("tenant_id in (4, 7)".into()),
            unchanged: vec!["select sum(balance) from account".into()],
            after: vec![Answer { query: "select count(*) from bad".into(), equals: "0".into() }],
            watch: Vec::new(),
        };
        plan.canary = Some(Canary { rows: 50, then: Then::Pause });
        let mut page = Page::new(Paint::PLAIN);
        expectations(&mut page, &plan);
        insta::assert_snapshot!(page.text(), @r"
        EXPECTATIONS  checked now, while it runs and at the end
          rows            900 to 1,100; a run that exceeds it stops itself
          scope           tenant_id in (4, 7); a row outside blocks the plan
          unchanged       select sum(balance) from account  gives the same
          after           select count(*) from bad  gives 0
          canary          50 rows first, then a pause, for somebody to look
        ");
    }
}
