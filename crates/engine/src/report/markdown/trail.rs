//! The auditor's part of a report as Markdown. Sections without content are left out.

use super::cell;
use crate::report::Trail;

impl Trail {
    /// All sections, one after the other.
    pub(super) fn markdown(&self) -> Vec<String> {
        vec![
            self.approvals_part(),
            self.guardrails_part(),
            self.glass_part(),
            self.expectations_part(),
            self.stops_part(),
        ]
    }

    fn approvals_part(&self) -> String {
        if self.approvals.is_empty() {
            return match self.covered_by {
                Some(run) => format!("## Approvals\n\nThose of run `{run}`, which cover its undo.\n"),
                None => String::new(),
            };
        }
        let mut text =
            "## Approvals\n\n| who | said | when | why | may start a run until | taken back |\n|---|---|---|---|---|---|\n"
                .to_owned();
        let nothing = String::new();
        for approval in &self.approvals {
            let row = [
                &approval.approver,
                &approval.verdict,
                &approval.given_at,
                &approval.reason,
                &approval.expires_at,
                approval.revoked.as_ref().unwrap_or(&nothing),
            ]
            .map(|text| cell(text));
            text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        text
    }

    fn guardrails_part(&self) -> String {
        if self.guardrails.is_empty() && self.environment.is_none() {
            return String::new();
        }
        let mut text = "## Guardrails when it started\n\n".to_owned();
        if let Some(environment) = &self.environment {
            let compared = match environment.compared.as_slice() {
                [] => "nothing beyond the policy was compared".to_owned(),
                compared => format!("{} as expected", compared.join(", ").replace('_', " ")),
            };
            text.push_str(&format!("Environment {}: {compared}.\n", environment.name));
        }
        if !self.guardrails.is_empty() {
            text.push_str("\n| rule | demanded | met |\n|---|---|---|\n");
        }
        for guardrail in &self.guardrails {
            let met = if guardrail.met { "yes" } else { "no: the glass was broken" };
            text.push_str(&format!("| {} | {} | {met} |\n", guardrail.rule, cell(&guardrail.demanded)));
        }
        text
    }

    fn glass_part(&self) -> String {
        let mut text = String::new();
        if let Some(glass) = &self.glass {
            text.push_str(&format!(
                "## Broken glass\n\n{} let {} run it at {}, until {}: {} ({}).\n",
                glass.granted_by, glass.granted_to, glass.granted_at, glass.expires_at, glass.reason, glass.ticket
            ));
        }
        if let Some(review) = &self.review {
            text.push_str(&match &review.closed {
                Some(closed) => format!("\nThe review of {} was closed by {closed}.\n", review.opened_at),
                None => format!("\nThe review of {} is open.\n", review.opened_at),
            });
        }
        text
    }

    fn expectations_part(&self) -> String {
        if self.expectations.is_empty() && self.canary.is_none() {
            return String::new();
        }
        let mut text = "## Expectations\n\n".to_owned();
        if let Some(canary) = &self.canary {
            text.push_str(&format!("Canary: {canary}.\n"));
        }
        if !self.expectations.is_empty() {
            text.push_str("\n| expected | before | after |\n|---|---|---|\n");
        }
        for expectation in &self.expectations {
            let row = [&expectation.expected, &expectation.before, &expectation.after].map(|text| cell(text));
            text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        text
    }

    fn stops_part(&self) -> String {
        if self.stops.is_empty() {
            return String::new();
        }
        let mut text =
            "## Pauses, holds and stops\n\n| when | what | who | why | until |\n|---|---|---|---|---|\n".to_owned();
        for stop in &self.stops {
            let until = stop.until.as_ref().map_or_else(String::new, |(at, who)| format!("{at}, by {who}"));
            let row = [&stop.at, &stop.what, &stop.who, &stop.why, &until].map(|text| cell(text));
            text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        text
    }
}
