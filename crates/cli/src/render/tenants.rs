//! Tenants: of a plan, in their order, and of a run, as they stand.

use pgmend::Plan;
use pgmend::control::{Standing, TenantStatus, TenantsStatus};
use pgmend_core::expect::Then;
use pgmend_core::mask::is_masked;
use pgmend_core::tenants::Tenant;

use super::figure;
use super::page::Page;
use super::plan::value;

/// Canaries, small ones and large ones of a plan that are listed; the JSON has all of them.
const CANARIES_LISTED: usize = 5;
const SMALL_LISTED: usize = 3;
const LARGE_LISTED: usize = 5;
/// Tenants of a run that are listed.
const STANDING_LISTED: usize = 12;

/// The tenants of a plan: how many, which ones first, which ones last.
pub fn planned(page: &mut Page, plan: &Plan) {
    let Some(tenants) = &plan.tenants else { return };
    let all = &tenants.tenants;
    let masked = all.iter().any(|tenant| tenant.shown.as_deref().is_some_and(is_masked));
    let hint = if masked { format!("; masked values: --plain {}", tenants.mode.column) } else { String::new() };
    let count = figure::counted(all.len() as i64, "tenant");
    page.heading("TENANTS", &format!("{count} by {}, in this order{hint}", tenants.mode.column));
    let (canaries, others): (Vec<&Tenant>, Vec<&Tenant>) = all.iter().partition(|tenant| tenant.canary);
    let width = all.iter().map(|t| value(t.shown.as_deref()).chars().count()).max().unwrap_or(0);
    let digits = all.iter().map(|t| figure::rows(t.rows).len()).max().unwrap_or(0);
    let line = |tenant: &Tenant, remark: &str| {
        let line =
            format!("{:<width$}  {:>digits$} rows{remark}", value(tenant.shown.as_deref()), figure::rows(tenant.rows));
        line.trim_end().to_owned()
    };
    for tenant in canaries.iter().take(CANARIES_LISTED) {
        page.line(&line(tenant, "  canary"));
    }
    more(page, canaries.len().saturating_sub(CANARIES_LISTED), "canaries");
    if !canaries.is_empty() && tenants.mode.then == Then::Pause {
        page.line("then a pause, for somebody to look");
    }
    let whole = others.len() <= SMALL_LISTED + LARGE_LISTED + 1;
    let small = if whole { others.len() } else { SMALL_LISTED };
    for tenant in others.iter().take(small) {
        page.line(&line(tenant, ""));
    }
    if !whole {
        more(page, others.len() - SMALL_LISTED - LARGE_LISTED, "in between");
        for tenant in &others[others.len() - LARGE_LISTED..] {
            page.line(&line(tenant, ""));
        }
    }
    if let Some(rows) = tenants.left_out_rows {
        let rows = format!("{} {}", figure::figure(rows), if rows.value == 1 { "row" } else { "rows" });
        page.line(&format!("left out: {rows} of tenants that the job does not list"));
    }
    let most = tenants.mode.failed_max;
    page.line(&match most {
        0 => "the first tenant that fails stops the run".to_owned(),
        _ => format!("a tenant that fails stops nobody else; more than {most} stop the run"),
    });
}

fn more(page: &mut Page, more: usize, what: &str) {
    if more > 0 {
        page.line(&format!("… {} more {what}", figure::rows(more as i64)));
    }
}

/// The tenants of a run: counts, then those that somebody may have to look at.
pub fn standing(page: &mut Page, tenants: &TenantsStatus) {
    let counted = |standing: Standing| {
        let count = tenants.count(standing);
        (count > 0).then(|| format!("{} {}", figure::rows(count as i64), standing.name()))
    };
    let order = [Standing::Done, Standing::Running, Standing::Waiting, Standing::Paused, Standing::Failed];
    let counts: Vec<String> = order.into_iter().filter_map(counted).collect();
    page.pair("tenants", &format!("{} (by {})", counts.join(", "), tenants.column));
    let mut listed: Vec<&TenantStatus> = tenants.tenants.iter().filter(|t| t.standing != Standing::Done).collect();
    listed.sort_by_key(|tenant| tenant.standing);
    let lines: Vec<String> = listed.iter().take(STANDING_LISTED).map(|tenant| line(tenant)).collect();
    page.pairs("", &lines);
    let left = listed.len().saturating_sub(STANDING_LISTED);
    if left > 0 {
        page.pair("", &format!("… {} more; --output json lists all of them", figure::rows(left as i64)));
    }
}

/// `7 failed, 20 of 310 rows: change a batch: … (23514)`.
fn line(tenant: &TenantStatus) -> String {
    let why = tenant.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let rounds = match tenant.rounds {
        0 => String::new(),
        1 => ", set aside once".to_owned(),
        n => format!(", set aside {n} times"),
    };
    format!(
        "{} {}, {} of {} rows{rounds}{why}",
        value(tenant.tenant.as_deref()),
        tenant.standing.name(),
        figure::rows(tenant.changed_rows),
        figure::rows(tenant.planned_rows)
    )
}
