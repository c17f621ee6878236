//! Tenants: the values of one column of the target, each of them a partition of the run with its own progress, so that
//! one bad or busy tenant stops nobody else.

use serde::{Deserialize, Serialize};

use crate::expect::Then;
use crate::job::Scalar;
use crate::plan::{Figure, RunSql};
use crate::refusal::{Code, Refusal};
use crate::retry::{Disposition, disposition};

/// Tenants of one run: each is a line of the plan that people review, and costs a worker two connections and ten round
/// trips, about a tenth of a second.
pub const TENANTS_MAX: usize = 2_000;
/// Canary tenants of one run: more of them are no small beginning.
pub const CANARIES_MAX: usize = 20;
/// Tenants that may fail where the job does not say: one bad tenant is an accident, four are a pattern.
pub const TENANTS_FAILED_MAX: u32 = 3;
/// How often a tenant whose rows others hold is set aside and tried again after the others, before it has failed.
pub const ROUNDS_MAX: i32 = 3;

/// `[tenants]` of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantMode {
    /// The column of the target whose values are the tenants; NULL is a tenant of its own.
    pub column: String,
    /// Only these tenants, at most 2,000; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<Scalar>>,
    /// These tenants come before all others, in this order; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canary: Vec<Scalar>,
    /// What follows the canary tenants.
    #[serde(default)]
    pub then: Then,
    /// Tenants that may fail before the whole run stops: 0 to 2,000, 3 when absent.
    #[serde(default = "failed_max")]
    pub failed_max: u32,
}

fn failed_max() -> u32 {
    TENANTS_FAILED_MAX
}

impl TenantMode {
    /// The tenants of a column, everything else at its default.
    pub fn by(column: impl Into<String>) -> Self {
        Self { column: column.into(), list: None, canary: Vec::new(), then: Then::Go, failed_max: TENANTS_FAILED_MAX }
    }

    /// The mode, if it makes sense by itself.
    pub fn check(&self) -> Result<(), Refusal> {
        let bad = |message: String, help: &str| Err(Refusal::new(Code::BadJob, message, help));
        if self.column.trim().is_empty() {
            return bad("tenants.column is empty".into(), "name a column of the target, such as tenant_id");
        }
        if self.list.as_ref().is_some_and(|list| list.is_empty() || list.len() > TENANTS_MAX) {
            return bad(
                format!("tenants.list names none, or more than {TENANTS_MAX}"),
                "name some, or leave it out for all of them",
            );
        }
        if self.canary.len() > CANARIES_MAX {
            let message = format!("tenants.canary names {} tenants, {CANARIES_MAX} at most", self.canary.len());
            return bad(message, "keep a few small ones that somebody can look at");
        }
        if self.then == Then::Pause && self.canary.is_empty() {
            return bad("tenants.then = \"pause\" without canary tenants".into(), "name some: tenants.canary = [...]");
        }
        if self.failed_max as usize > TENANTS_MAX {
            return bad(format!("tenants.failed_max = {} is out of range", self.failed_max), "choose 0 to 2000");
        }
        Ok(())
    }
}

/// A tenant of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its value as text; absent for NULL.
    pub value: Option<String>,
    /// Its value as it may be shown.
    pub shown: Option<String>,
    /// Rows that will change, as counted by the plan.
    pub rows: i64,
    /// Whether it comes before those that are none.
    #[serde(default, skip_serializing_if = "is_false")]
    pub canary: bool,
    /// Of a frozen plan: its first and its last ordinal of the change set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinals: Option<(i64, i64)>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Tenant {
    /// What people call it: its value, or `NULL`.
    pub fn name(&self) -> &str {
        self.shown.as_deref().unwrap_or("NULL")
    }
}

/// The tenants of a plan, in the order in which they are driven. A tenant's number is its place, from 1, and the number
/// of its partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tenants {
    /// As the job says it; like the constants of its statement, the values that it names may be shown.
    pub mode: TenantMode,
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// Rows that match the statement and belong to tenants that the job leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out_rows: Option<Figure>,
    /// Of a streamed plan: the SQL of one tenant, whose value is one more parameter after those of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<Box<RunSql>>,
    /// The same for the tenant NULL, with the same parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_sql: Option<Box<RunSql>>,
}

impl Tenants {
    /// The tenant with a number, from 1.
    pub fn numbered(&self, number: i32) -> Option<&Tenant> {
        self.tenants.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// Leaves only what may be shown.
    pub fn conceal(&mut self) {
        for tenant in &mut self.tenants {
            tenant.value.clone_from(&tenant.shown);
        }
    }

    /// The number of the tenant that a person means: by its value, or by what is shown of it.
    pub fn find(&self, named: &str) -> Option<i32> {
        let place = |is: &dyn Fn(&Tenant) -> bool| self.tenants.iter().position(is);
        let found = place(&|t| t.value.as_deref() == Some(named))
            .or_else(|| place(&|t| t.shown.as_deref() == Some(named)))
            .or_else(|| place(&|t| t.value.is_none() && named == "NULL"))?;
        i32::try_from(found + 1).ok()
    }
}

/// Canaries first, in the job's order; then small to large; names decide between equals, so that a plan made twice is
/// the same. `canary` is a tenant's place among the canaries, from 1.
pub fn in_order(mut tenants: Vec<(Tenant, Option<i64>)>) -> Vec<Tenant> {
    tenants.sort_by(|(a, at), (b, bt)| {
        let order = |t: &Tenant, canary: &Option<i64>| (canary.unwrap_or(i64::MAX), t.rows);
        order(a, at).cmp(&order(b, bt)).then_with(|| a.value.cmp(&b.value))
    });
    tenants.into_iter().map(|(tenant, canary)| Tenant { canary: canary.is_some(), ..tenant }).collect()
}

/// Whom an error stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The tenant whose rows raised it.
    Tenant,
    /// The whole run: it says something about the statement, the database or pgmend, not about one tenant's rows.
    Run,
}

/// Whom the error stops that a batch of one tenant could not get over, from its SQLSTATE.
pub fn reach(sqlstate: &str) -> Reach {
    let of_rows = match disposition(sqlstate) {
        // Values that the change cannot take, what a trigger raises, a row that takes longer than a statement may.
        Disposition::IsolateRow | Disposition::FindRow | Disposition::ShrinkBatch => true,
        // Somebody else's locks.
        Disposition::RetryBatch => is_contention(sqlstate),
        Disposition::PauseRun => false,
        // Another error of a trigger's, WITH CHECK OPTION, a value too large for an index.
        Disposition::FailRun => ["P0", "44", "54"].iter().any(|class| sqlstate.starts_with(class)),
    };
    if of_rows { Reach::Tenant } else { Reach::Run }
}

/// Whether other sessions' locks were in the way: the tenant may be tried again after the others.
pub fn is_contention(sqlstate: &str) -> bool {
    matches!(sqlstate, "40001" | "40P01" | "55P03")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(value: &str, rows: i64) -> Tenant {
        Tenant { value: Some(value.into()), shown: Some(value.into()), rows, canary: false, ordinals: None }
    }

    #[test]
    fn canaries_come_first_and_then_the_small_before_the_large() {
        let tenants = vec![
            (tenant("large", 900), None),
            (tenant("b", 5), None),
            (tenant("second", 7), Some(2)),
            (tenant("a", 5), None),
            (tenant("first", 800), Some(1)),
        ];
        let ordered = in_order(tenants);
        let names: Vec<_> = ordered.iter().map(|t| (t.name(), t.canary)).collect();
        assert_eq!(names, [("first", true), ("second", true), ("a", false), ("b", false), ("large", false)]);
    }

    #[test]
    fn an_error_about_rows_stops_one_tenant_and_one_about_the_database_stops_all() {
        for rows in ["23514", "22003", "P0001", "55P03", "40P01", "57014", "54000"] {
            assert_eq!(reach(rows), Reach::Tenant, "{rows}");
        }
        for all in ["PM507", "PM505", "PM520", "XX001", "42703", "53100", "42501", "28000", "08006", "25006", "PM721"] {
            assert_eq!(reach(all), Reach::Run, "{all}");
        }
    }

    #[test]
    fn a_tenant_is_found_by_its_value_and_null_by_its_name() {
        let null = Tenant { value: None, shown: None, ..tenant("", 1) };
        let masked = Tenant { shown: Some("‹4f7k0q›".into()), ..tenant("acme", 2) };
        let tenants = Tenants {
            mode: TenantMode::by("t"),
            tenants: vec![masked, null],
            left_out_rows: None,
            sql: None,
            null_sql: None,
        };
        assert_eq!((tenants.find("acme"), tenants.find("‹4f7k0q›"), tenants.find("NULL")), (Some(1), Some(1), Some(2)));
        assert_eq!(tenants.find("other"), None);
        assert_eq!(tenants.numbered(2).map(Tenant::name), Some("NULL"));
        assert!(tenants.numbered(0).is_none() && tenants.numbered(3).is_none() && tenants.numbered(-1).is_none());
    }

    #[test]
    fn a_mode_that_contradicts_itself_is_refused() {
        assert!(TenantMode::by("t").check().is_ok());
        assert!(TenantMode::by(" ").check().is_err());
        assert!(TenantMode { list: Some(Vec::new()), ..TenantMode::by("t") }.check().is_err());
        assert!(TenantMode { then: Then::Pause, ..TenantMode::by("t") }.check().is_err());
        assert!(TenantMode { failed_max: 2_001, ..TenantMode::by("t") }.check().is_err());
    }
}
