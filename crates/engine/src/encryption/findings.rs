//! What a plan with a recipient must say of the server: a statement's parameters may be written to its log, and the
//! image key is one.

use pgmend_core::finding::Finding;
use pgmend_pg::PgError;
use pgmend_pg::readtx::ReadTx;

/// The statement that binds the key does no work: one that takes longer than this waits for a processor.
const SLOW_MS: i64 = 100;

/// The server's settings that decide whether parameters are logged; what is not there is off.
const SETTINGS: &str = "select coalesce(current_setting('log_parameter_max_length', true), '-1'), \
    coalesce(current_setting('log_statement', true), 'all'), \
    coalesce((select setting from pg_catalog.pg_settings where name = 'log_min_duration_statement'), '0'), \
    coalesce((select setting from pg_catalog.pg_settings where name = 'log_min_duration_sample'), '0'), \
    coalesce(current_setting('log_transaction_sample_rate', true), '1'), \
    coalesce(current_setting('log_parameter_max_length_on_error', true), '-1'), \
    coalesce((select setting from pg_catalog.pg_settings where name = 'auto_explain.log_min_duration'), '-1'), \
    coalesce(current_setting('auto_explain.log_parameter_max_length', true), '-1'), \
    coalesce(nullif(current_setting('pgaudit.log_parameter', true), ''), 'off'), \
    coalesce(current_setting('log_min_duration_statement', true), '')";

/// A finding where the server's log may take up the key.
/// Lock: none. Index: none.
pub(crate) async fn parameters_logged(tx: &ReadTx<'_>) -> Result<Option<Finding>, PgError> {
    let answer = tx.query("look what the server logs", SETTINGS, vec![]).await?;
    let row: Vec<String> = answer.rows.into_iter().next().unwrap_or_default().into_iter().flatten().collect();
    Ok(judged(&row))
}

/// The finding for these settings, in the order of the query. What does not read counts as logging.
fn judged(settings: &[String]) -> Option<Finding> {
    let of = |at: usize| settings.get(at).map_or("", String::as_str);
    let number = |at: usize, unread: i64| of(at).parse::<i64>().unwrap_or(unread);
    let quick = |at: usize| (0..=SLOW_MS).contains(&number(at, 0));
    let mut by = Vec::new();
    // 0 keeps parameters out of everything that the server itself logs of statements that succeed.
    if of(0) != "0" {
        if of(1) == "all" {
            by.push("log_statement is all".to_owned());
        }
        if quick(2) {
            by.push(format!("log_min_duration_statement is {}", of(9)));
        }
        if quick(3) {
            by.push("log_min_duration_sample is small".to_owned());
        }
        if of(4).parse::<f64>().map_or(true, |rate| rate > 0.0) {
            by.push("log_transaction_sample_rate is not 0".to_owned());
        }
    }
    if of(5) != "0" {
        by.push("log_parameter_max_length_on_error is not 0".to_owned());
    }
    if quick(6) && of(7) != "0" {
        by.push("auto_explain logs quick statements".to_owned());
    }
    if of(8) != "off" {
        by.push("pgaudit.log_parameter is on".to_owned());
    }
    let help = "let a superuser type: alter role … set log_parameter_max_length = 0, and likewise for the others; then connect again";
    if !by.is_empty() {
        let message = format!("the server may log the key that images are encrypted with: {}", by.join(", "));
        return Some(Finding::warning("parameters_logged", message, help));
    }
    // A server that stalls logs a statement that does nothing.
    (of(0) != "0" && number(2, 0) >= 0).then(|| {
        let message = format!(
            "a statement that takes longer than {} is logged with its parameters; the one that binds the image key does no work, so that only a stalled server would log it",
            of(9)
        );
        Finding::note("parameters_logged", message, help)
    })
}

#[cfg(test)]
mod tests {
    use pgmend_core::finding::Severity;

    use super::judged;

    fn settings(change: &[(usize, &str)]) -> Vec<String> {
        let quiet = ["-1", "none", "-1", "-1", "0", "0", "-1", "-1", "off", "-1"];
        let mut all = quiet.map(str::to_owned).to_vec();
        for (at, value) in change {
            (*value).clone_into(&mut all[*at]);
        }
        all
    }

    #[test]
    fn a_server_that_logs_no_parameters_is_no_finding() {
        assert_eq!(judged(&settings(&[])), None);
        assert_eq!(judged(&settings(&[(0, "0"), (1, "all"), (2, "0"), (4, "1")])), None);
    }

    #[test]
    fn each_setting_that_logs_them_is_named() {
        for change in [(1, "all"), (2, "0"), (2, "50"), (3, "0"), (4, "0.5"), (5, "-1"), (6, "0"), (8, "on")] {
            let finding = judged(&settings(&[change])).expect("a finding");
            assert_eq!(finding.severity, Severity::Warning, "{change:?}");
        }
        let note = judged(&settings(&[(2, "1000"), (9, "1s")])).expect("a note");
        assert_eq!(note.severity, Severity::Note);
        assert!(note.message.contains("1s"), "{}", note.message);
    }

    #[test]
    fn settings_that_cannot_be_read_count_as_logging() {
        assert!(judged(&[]).is_some());
    }
}
