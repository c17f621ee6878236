//! A session that keeps a run waiting, as people may see it: who it is, what it does, for how long, and the shape of its
//! statement. Never a value of that.

use pgmend_pg::archive::Blocker;

/// What the server shows in the place of a statement that this role may not see.
const HIDDEN: &str = "<insufficient privilege>";

/// `pid 4711 (psql of alice, idle in transaction, its transaction is 312 s old, last: update t set a = ? where id = ?)`.
pub(crate) fn who(blocker: &Blocker) -> String {
    let application = if blocker.application.is_empty() { "a session" } else { &blocker.application };
    let open = blocker.open_s.map_or(String::new(), |s| format!(", its transaction is {s:.0} s old"));
    let sent = blocker.statement.as_ref().map(|sent| sent.reveal()).filter(|text| *text != HIDDEN);
    let verb = if blocker.state == "active" { "runs" } else { "last" };
    let shape = sent.and_then(pgmend_sql::shape).map_or(String::new(), |shape| format!(", {verb}: {shape}"));
    format!("pid {} ({application} of {}, {}{open}{shape})", blocker.pid, blocker.user, blocker.state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocker(state: &str, statement: &str) -> Blocker {
        let json = serde_json::json!({ "pid": 4711, "user": "alice", "application": "psql", "state": state,
            "open_s": 312.4, "statement": statement });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_blocker_is_named_with_the_shape_of_its_statement_and_none_of_its_values() {
        let idle = blocker("idle in transaction", "update account set iban = 'DE02' where id = 7 -- kim");
        let said = "pid 4711 (psql of alice, idle in transaction, its transaction is 312 s old, last: update account set iban = ? where id = ?)";
        assert_eq!(who(&idle), said);
        assert!(!format!("{idle:?}").contains("DE02"));
        assert!(who(&blocker("active", "lock table account")).ends_with("runs: lock table account)"));
        assert!(who(&blocker("active", HIDDEN)).ends_with("312 s old)"));
    }
}
