//! The tenants of a run in its report.

use super::{cell, thousands};
use crate::control::{Standing, TenantStatus, TenantsStatus};

/// Tenants listed one by one; the JSON has all of them.
const LISTED_MAX: usize = 50;

impl TenantsStatus {
    /// A section of the report: those that are not done first, then the largest.
    pub(super) fn markdown(&self) -> String {
        let count = |standing: Standing| Some(self.count(standing)).filter(|n| *n > 0);
        let counts: Vec<String> =
            [Standing::Done, Standing::Running, Standing::Waiting, Standing::Paused, Standing::Failed]
                .into_iter()
                .filter_map(|standing| count(standing).map(|n| format!("{} {}", thousands(n as i64), standing.name())))
                .collect();
        let mut listed: Vec<&TenantStatus> = self.tenants.iter().collect();
        listed.sort_by_key(|tenant| (tenant.standing, std::cmp::Reverse(tenant.changed_rows)));
        let mut text = format!(
            "## Tenants\n\nBy `{}`: {}.\n\n| tenant | | planned | changed | conflicts | set aside | |\n|---|---|---:|---:|---:|---:|---|\n",
            self.column,
            counts.join(", ")
        );
        for tenant in listed.iter().take(LISTED_MAX) {
            let canary = if tenant.canary { ", canary" } else { "" };
            text.push_str(&format!(
                "| {} | {}{canary} | {} | {} | {} | {} | {} |\n",
                cell(tenant.name()),
                tenant.standing.name(),
                thousands(tenant.planned_rows),
                thousands(tenant.changed_rows),
                thousands(tenant.conflict_rows),
                thousands(tenant.dead_rows),
                cell(tenant.why.as_deref().unwrap_or_default())
            ));
        }
        let more = listed.len().saturating_sub(LISTED_MAX);
        if more > 0 {
            text.push_str(&format!(
                "\nand {} more, done with fewer rows or as listed in the JSON\n",
                thousands(more as i64)
            ));
        }
        text
    }
}
