//! What of a server's message may be shown. PostgreSQL's own sentences keep row values in DETAIL, which is dropped, and in
//! quotes; the text that a function of the database raises may hold anything, so that nothing of it is shown but who
//! raised it. What cannot be told apart counts as holding values.

use pgmend_core::mask::{MASKED, TEXT_MASKED};
use tokio_postgres::error::{DbError, ErrorPosition};

/// SQLSTATEs of `RAISE` without one, and of `ASSERT`.
const RAISED: [&str; 2] = ["P0001", "P0004"];
/// The server's routines that pass on a text which a function, or another server's function, wrote.
const RAISING_ROUTINES: [&str; 4] = ["exec_stmt_raise", "exec_stmt_assert", "pgfdw_report_error", "dblink_res_error"];
/// What `RAISE` is reported by, and the schema that each `RAISE` of pgmend's own functions names, which is in a field of
/// its own in the protocol. A SQLSTATE alone proves nothing: anybody may `RAISE … USING ERRCODE = 'PM505'`.
const OURS: (&str, &str) = ("exec_stmt_raise", "pgmend");
/// Classes whose sentences name objects of the schema, and no values (`src/backend/utils/errcodes.txt`).
const CLASSES_WITHOUT_VALUES: [&str; 37] = [
    "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "23", "24", "25", "26", "27", "28", "2B",
    "2D", "2F", "34", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58", "72", "F0", "P0", "PM",
];
/// Corrupted data or index: the sentence names files and indexes.
const CORRUPTED: [&str; 2] = ["XX001", "XX002"];
/// Statements of PL/pgSQL whose SQL stands in the function as it is: names in it are no values.
const FIXED_STATEMENTS: [&str; 6] =
    [" at SQL statement", " at assignment", " at IF", " at PERFORM", " at RETURN", " at FOR over SELECT rows"];

/// An error as the server reports it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said<'a> {
    pub sqlstate: &'a str,
    pub message: &'a str,
    pub detail: Option<&'a str>,
    pub hint: Option<&'a str>,
    pub context: Option<&'a str>,
    /// The routine of the server's source that reported it.
    pub routine: Option<&'a str>,
    /// The schema that it names.
    pub schema: Option<&'a str>,
    /// The statement of a function that it is about.
    pub inner: Option<&'a str>,
}

impl<'a> From<&'a DbError> for Said<'a> {
    fn from(error: &'a DbError) -> Self {
        let inner = match error.position() {
            Some(ErrorPosition::Internal { query, .. }) => Some(query.as_str()),
            Some(ErrorPosition::Original(_)) | None => None,
        };
        Self {
            sqlstate: error.code().code(),
            message: error.message(),
            detail: error.detail(),
            hint: error.hint(),
            context: error.where_(),
            routine: error.routine(),
            schema: error.schema(),
            inner,
        }
    }
}

impl Said<'_> {
    /// The sentence as it may be shown and kept.
    pub(crate) fn shown(&self) -> String {
        if self.borrows_a_code() {
            return format!("{} {TEXT_MASKED}, with a {} of its own", self.raiser(), self.sqlstate);
        }
        if self.raised_by_a_function() {
            return format!("{} {TEXT_MASKED}", self.raiser());
        }
        if self.sqlstate.starts_with("22") {
            return without_input(self.message);
        }
        let class = self.sqlstate.get(..2).unwrap_or_default();
        let names_only = CLASSES_WITHOUT_VALUES.contains(&class) || CORRUPTED.contains(&self.sqlstate);
        match names_only && !(class == "42" && self.of_built_sql()) {
            true => self.message.to_owned(),
            false => without_quoted(self.message),
        }
    }

    /// The SQLSTATE by what it means to pgmend: a code of pgmend's that a function of the database borrows says no more
    /// than a `RAISE` without one.
    pub(crate) fn meant_sqlstate(&self) -> &str {
        if self.borrows_a_code() { RAISED[0] } else { self.sqlstate }
    }

    /// Whether the names that the server gave beside the sentence are the schema's own, and not what a `RAISE … USING` set.
    pub(crate) fn names_are_the_schemas(&self) -> bool {
        !self.raised_by_a_function()
    }

    /// The hint, where it speaks about the statement: elsewhere it may quote what it is about.
    pub(crate) fn shown_hint(&self) -> Option<String> {
        let about_sql = self.sqlstate.starts_with("42") && self.context.is_none() && self.inner.is_none();
        self.hint.filter(|_| about_sql && !self.raised_by_a_function()).map(str::to_owned)
    }

    /// All of it, for the eyes of a person who asked for values; `None` if that is no more than what is shown anyway.
    pub(crate) fn in_full(&self) -> Option<String> {
        let hint = self.hint.filter(|_| self.shown_hint().is_none());
        if self.shown() == self.message && self.detail.is_none() && hint.is_none() {
            return None;
        }
        let more = [("DETAIL", self.detail), ("HINT", hint), ("CONTEXT", self.context)];
        let more = more.into_iter().filter_map(|(name, text)| text.map(|text| format!("\n  {name}: {text}")));
        Some(format!("{} ({}){}", self.message, self.sqlstate, more.collect::<String>()))
    }

    /// Whether it is a guard of pgmend's own functions.
    fn is_a_guard(&self) -> bool {
        self.sqlstate.starts_with("PM") && self.routine.zip(self.schema) == Some(OURS)
    }

    /// Whether a function of the database raised it with a SQLSTATE that looks like one of pgmend's.
    fn borrows_a_code(&self) -> bool {
        self.sqlstate.starts_with("PM") && !self.is_a_guard()
    }

    /// Whether the text was written by a function of the database rather than by the server or by pgmend's own functions.
    fn raised_by_a_function(&self) -> bool {
        if self.is_a_guard() {
            return false;
        }
        // Any other language reports its own errors and those of its code alike.
        let other_language = self.frames().next().is_some_and(|frame| !frame.contains("PL/pgSQL"));
        RAISED.contains(&self.sqlstate)
            || self.borrows_a_code()
            || self.routine.is_some_and(|routine| RAISING_ROUTINES.contains(&routine))
            || other_language
    }

    /// Functions that were under way, the innermost first. Lines that quote SQL may hold anything.
    fn frames(&self) -> impl Iterator<Item = &str> {
        let lines = self.context.unwrap_or_default().lines();
        lines.filter(|line| !line.contains('"') || line.starts_with("PL/")).filter(|line| line.contains("PL/"))
    }

    /// The function that raised it, by its name. It is read in English only: another language's line says less.
    fn raiser(&self) -> String {
        let named = self.frames().next().and_then(|frame| frame.strip_prefix("PL/")?.split_once(" function "));
        let name = named.map(|(_, rest)| rest).and_then(function_name);
        name.map_or_else(|| "a function of the database".to_owned(), |name| format!("function {name}"))
    }

    /// Whether the SQL that failed was put together by a function, maybe from values.
    fn of_built_sql(&self) -> bool {
        let Some(frame) = self.frames().next() else { return self.inner.is_some() };
        !FIXED_STATEMENTS.iter().any(|fixed| frame.ends_with(fixed))
    }
}

/// `check_balance()` of `check_balance() line 3 at RAISE`, `f` of `"f"`: without the types of its arguments.
fn function_name(rest: &str) -> Option<String> {
    let mut quoted = false;
    let end = rest.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        !quoted && (*c == '(' || *c == ',' || c.is_whitespace())
    });
    let name = rest.get(..end.map_or(rest.len(), |(at, _)| at))?;
    (!name.is_empty()).then(|| format!("{name}()"))
}

/// Data exceptions quote the offending input: after a colon to the end, or somewhere in the sentence.
fn without_input(message: &str) -> String {
    without_quoted(message.find(": \"").map_or(message, |at| &message[..at]))
}

/// The sentence with what it quotes, and bytes that it shows as numbers, masked.
fn without_quoted(sentence: &str) -> String {
    let parts: Vec<&str> = sentence.split('"').collect();
    // Quotes that do not pair may be part of a value.
    if parts.len().is_multiple_of(2) {
        return parts.first().map_or_else(String::new, |said| said.trim_end().to_owned());
    }
    let shown = parts.iter().enumerate().map(|(place, part)| match place % 2 {
        1 => MASKED.to_owned(),
        _ => without_bytes(part),
    });
    shown.collect()
}

/// `byte sequence 0xe4 0xb8` is a character of a value.
fn without_bytes(part: &str) -> String {
    if !part.contains("0x") {
        return part.to_owned();
    }
    let words = part.split(' ').map(|word| if word.starts_with("0x") { MASKED } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{MASKED, Said};

    fn shown(sqlstate: &str, message: &str) -> String {
        Said { sqlstate, message, ..Said::default() }.shown()
    }

    #[test]
    fn a_data_exception_loses_its_quoted_value() {
        let message = "invalid input syntax for type integer: \"4000 0000 0000 0002\"";
        assert_eq!(shown("22P02", message), "invalid input syntax for type integer");
        let message = "value \"99999999999\" is out of range for type integer";
        assert_eq!(shown("22003", message), format!("value {MASKED} is out of range for type integer"));
        assert_eq!(shown("22007", "invalid value \"a\"b\" for \"YYYY\""), "invalid value");
        let message =
            "character with byte sequence 0xe4 0xb8 in encoding \"UTF8\" has no equivalent in encoding \"LATIN1\"";
        assert!(!shown("22P05", message).contains("0x"), "{}", shown("22P05", message));
        let message = "duplicate key value violates unique constraint \"users_pkey\"";
        assert_eq!(shown("23505", message), message);
    }

    #[test]
    fn what_a_function_raises_is_masked_whatever_its_sqlstate() {
        let context = "PL/pgSQL function shop.\"check (it)\"(text) line 3 at RAISE\nSQL statement \"select 1\"";
        for sqlstate in ["P0001", "23514", "22023", "40001", "ABC12"] {
            let routine = Some("exec_stmt_raise");
            let hint = Some("ask wyvern");
            let message = "customer wyvern owes 7";
            let said = Said { sqlstate, message, routine, hint, context: Some(context), ..Said::default() };
            assert_eq!(said.shown(), "function shop.\"check (it)\"() raised an error, whose text is masked");
            assert_eq!((said.shown_hint(), said.names_are_the_schemas()), (None, false));
            let full = said.in_full().unwrap();
            assert!(full.starts_with(&format!("{message} ({sqlstate})\n  HINT: ask wyvern")), "{full}");
        }
    }

    #[test]
    fn other_languages_and_other_servers_are_not_believed_either() {
        let message = "KeyError: 'wyvern'";
        for (context, routine, who) in [
            (
                Some("Traceback (most recent call last):\n  \"x\"\nPL/Python function \"audit\""),
                None,
                "function \"audit\"()",
            ),
            (Some("fonction PL/pgSQL f(), ligne 1, à RAISE"), Some("exec_stmt_raise"), "a function of the database"),
            (
                Some("SQL statement \"insert into far values ('PL/x function wyvern(')\""),
                Some("pgfdw_report_error"),
                "a function of the database",
            ),
            (None, Some("exec_stmt_assert"), "a function of the database"),
        ] {
            let said = Said { sqlstate: "XX000", message, context, routine, ..Said::default() };
            assert_eq!(said.shown(), format!("{who} raised an error, whose text is masked"));
        }
    }

    #[test]
    fn a_server_sentence_inside_a_function_keeps_the_names_that_the_function_itself_has() {
        let message = "relation \"audit_log\" does not exist";
        let at =
            |context| Said {
                sqlstate: "42P01", message, context: Some(context), inner: Some("…"), ..Said::default()
            };
        assert_eq!(at("PL/pgSQL function audit() line 3 at SQL statement").shown(), message);
        let masked = format!("relation {MASKED} does not exist");
        assert_eq!(at("PL/pgSQL function audit() line 3 at EXECUTE").shown(), masked);
        assert_eq!(at("unbekannt").shown(), masked);
        assert_eq!(shown("42P01", message), message);
        let message = "duplicate key value violates unique constraint \"audit_pkey\"";
        let context = Some("PL/pgSQL function audit() line 3 at EXECUTE");
        assert_eq!(Said { sqlstate: "23505", message, context, ..Said::default() }.shown(), message);
    }

    #[test]
    fn a_guard_of_ours_speaks_for_itself() {
        let said = Said {
            sqlstate: "PM530",
            message: "the shop is slow",
            routine: Some("exec_stmt_raise"),
            schema: Some("pgmend"),
            ..Said::default()
        };
        assert_eq!((said.shown().as_str(), said.in_full()), ("the shop is slow", None));
        assert_eq!(said.meant_sqlstate(), "PM530");
    }

    #[test]
    fn a_code_of_ours_that_somebody_else_raises_means_nothing() {
        let context = Some("PL/pgSQL function audit() line 3 at RAISE");
        let raise = Some("exec_stmt_raise");
        for (routine, schema) in
            [(raise, None), (raise, Some("shop")), (None, Some("pgmend")), (Some("pgfdw_report_error"), Some("pgmend"))]
        {
            let said =
                Said { sqlstate: "PM505", message: "wyvern has it", routine, schema, context, ..Said::default() };
            let shown = "function audit() raised an error, whose text is masked, with a PM505 of its own";
            assert_eq!((said.shown().as_str(), said.meant_sqlstate()), (shown, "P0001"));
            assert!(!said.names_are_the_schemas());
            assert!(said.in_full().is_some_and(|full| full.starts_with("wyvern has it (PM505)")));
        }
    }

    #[test]
    fn classes_that_nobody_knows_show_no_quotes() {
        assert_eq!(shown("XX000", "bad geometry \"POINT(7 9)\""), format!("bad geometry {MASKED}"));
        assert_eq!(shown("HV000", "remote says \"wyvern\""), format!("remote says {MASKED}"));
        let message = "index \"users_pkey\" contains unexpected zero page at block 7";
        assert_eq!(shown("XX002", message), message);
    }
}
